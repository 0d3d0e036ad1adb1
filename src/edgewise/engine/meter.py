"""What a step costs, learnt from the steps themselves: least squares on their work, older steps fading."""

import numpy as np
import numpy.typing as npt

from edgewise.engine.api import StepCost

EVERY, SELDOM = 32, 256  # steps between the first two fits, and between two later ones: each doubles what it waits for
FADE = 0.998


class StepMeter:
    """start: what to believe before the first fit."""

    def __init__(self, start: StepCost = StepCost()) -> None:
        self.cost = start
        self._products = np.zeros((4, 4))
        self._sums = np.zeros(4)
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._every = EVERY

    def saw(self, prefill: int, decode: int, context: int, seconds: float) -> None:
        self._rows.append((1.0, prefill, decode, context, seconds))
        if len(self._rows) >= self._every:
            self._fit()
            self._every = min(2 * self._every, SELDOM)
        elif not self._products[0, 0]:
            self._fit()

    def _fit(self) -> None:
        rows = np.array(self._rows)
        self._rows.clear()
        work, seconds = rows[:, :4], rows[:, 4]
        fade = FADE ** len(rows)
        self._products = fade * self._products + work.T @ work
        self._sums = fade * self._sums + work.T @ seconds
        self.cost = StepCost(*solve(self._products, self._sums))


def solve(products: npt.NDArray[np.float64], sums: npt.NDArray[np.float64]) -> list[float]:
    """Least squares without negative answers: what comes out negative is left out, one at a time."""
    keep = [i for i in range(len(sums)) if products[i, i] > 0]
    answer = [0.0] * len(sums)
    scale = np.sqrt(np.maximum(np.diag(products), 1e-30))
    while keep:
        a = products[np.ix_(keep, keep)] / np.outer(scale[keep], scale[keep])
        found = np.linalg.solve(a + 1e-6 * np.eye(len(keep)), sums[keep] / scale[keep])
        if found.min() >= 0:
            for i, value in zip(keep, found / scale[keep], strict=True):
                answer[i] = float(value)
            break
        del keep[int(found.argmin())]
    return answer
