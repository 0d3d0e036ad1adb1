"""A table of which experts followed which: those that most often came after the ones just chosen are fetched.

Paper:  Yi et al., EdgeMoE, arXiv 2308.14352 (a table made beforehand, over two layers; here one that
        learns, over one)
Exact.
Needs:  nothing
Cost:   the experts chosen x the experts of a layer additions a layer, and that table's memory
Status: trial
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt


class Transitions:
    """most: experts that are guessed. keep: share of the old counts that a new one leaves."""

    def __init__(self, most: int = 2, keep: float = 0.99) -> None:
        self.most = most
        self.keep = keep
        self._counts: dict[int, npt.NDArray[np.float32]] = {}  # layer → (expert there, expert of the next layer)
        self._last: tuple[int, Sequence[int]] | None = None

    def wants(self, layer: int, chosen: Sequence[int], gate: Callable[[], Sequence[int]]) -> Sequence[int]:
        if self._last is not None and self._last[0] < layer:
            before, those = self._last
            size = max(*those, *chosen) + 1
            table = self._room(before, size)
            rows = np.asarray(those)
            table[rows] *= self.keep
            table[np.ix_(rows, np.asarray(chosen))] += 1.0
        self._last = layer, tuple(chosen)
        counts = self._counts.get(layer)
        if counts is None:
            return ()
        known = [expert for expert in chosen if expert < len(counts)]
        total = counts[known].sum(axis=0)
        order = np.argsort(-total, kind="stable")[: self.most]
        return [int(expert) for expert in order if total[expert] > 0]

    def _room(self, layer: int, size: int) -> npt.NDArray[np.float32]:
        table = self._counts.get(layer)
        if table is None or len(table) < size:
            grown = np.zeros((size, size), np.float32)
            if table is not None:
                grown[: len(table), : len(table)] = table
            self._counts[layer] = table = grown
        return table
