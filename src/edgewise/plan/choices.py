"""Measured choices between kernels that give the same result: asked once on a machine, then remembered.

    choices = Choices(Store(fingerprint(device.threads, device.isa)))
    question = Question("lookup", "int2:group=64", rows, cols, n)
    name = choices.pick(question, {"dot": run_dot, "lookup": run_lookup})  # the first one is the default
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels.choices import Question
from edgewise.plan.store import Store

GAIN = 1.02  # what a rival must win by, in the median of pairs, to replace the default
LEAST_ROUNDS = 5


class Choices:
    """clock: seconds, for tests."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.perf_counter) -> None:
        self.store = store
        self.clock = clock

    def known(self, question: Question) -> str | None:
        """What was measured here before, None when nothing was."""
        entry = self.store.get("choices", question.key)
        best = entry.get("best") if entry else None
        return best if isinstance(best, str) else None

    def pick(
        self, question: Question, rivals: Mapping[str, Callable[[], Any]], *, seconds: float = 0.2, equal: bool = True
    ) -> str:
        """The fastest of the rivals, by the store or by measuring them in turns for so many seconds; then stored.

        rivals: name → a run that returns its result; the first is the default, and stays it unless another wins by
        GAIN. equal: a rival whose result differs from the default's in any bit is out, for good. seconds 0: nothing is
        measured; what is not known is the default.
        """
        if not rivals:
            raise BadInput(f"There is nothing to choose from for '{question.key}'.")
        default = next(iter(rivals))
        known = self.known(question)
        if known in rivals:
            assert known is not None
            return known
        if seconds <= 0 or len(rivals) == 1:
            return default
        fit = self._admitted(rivals, default) if equal else dict(rivals)
        taken = self._race(fit, seconds)
        best = winner(taken, default)
        times = {name: statistics.median(times) * 1e6 for name, times in taken.items()}
        self.store.put("choices", {question.key: {"best": best, "us": times}})
        return best

    @staticmethod
    def _admitted(rivals: Mapping[str, Callable[[], Any]], default: str) -> dict[str, Callable[[], Any]]:
        want = bits(rivals[default]())
        return {name: run for name, run in rivals.items() if name == default or bits(run()) == want}

    def _race(self, rivals: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
        for run in rivals.values():  # warm
            run()
        taken: dict[str, list[float]] = {name: [] for name in rivals}
        end = self.clock() + seconds
        rounds = 0
        while rounds < LEAST_ROUNDS or self.clock() < end:
            names = list(rivals)
            for name in names[rounds % len(names) :] + names[: rounds % len(names)]:  # everyone is first in turn
                begin = self.clock()
                rivals[name]()
                taken[name].append(self.clock() - begin)
            rounds += 1
        return taken


def winner(taken: Mapping[str, list[float]], default: str) -> str:
    """The rival with the largest median of pairwise gains over the default, when that is at least GAIN."""
    gains = {
        name: statistics.median(mine / theirs for mine, theirs in zip(taken[default], times, strict=True))
        for name, times in taken.items()
    }
    best = max(gains, key=lambda name: gains[name])
    return best if gains[best] >= GAIN else default


def bits(result: Any) -> bytes:
    """The bytes of a result, or of several."""
    if isinstance(result, tuple | list):
        return b"".join(bits(one) for one in result)
    return np.ascontiguousarray(result).tobytes()
