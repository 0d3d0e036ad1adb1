"""Minus recent score: whoever the router has valued least of late leaves, chosen or not.

Paper:  Zhong et al., HybriMoE, arXiv 2504.05897 (section 4.3): S ← α · TopP(s) + (1 − α) · S, the smallest S leaves
Exact.
Needs:  nothing
Cost:   O(experts of a layer) a pass of few tokens; O(bundles) to find who leaves, one vector operation
Status: trial
"""

from collections.abc import Callable, Sequence

import numpy as np


class Mrs:
    """alpha: weight of the newest scores. top: how many of a layer's scores count, others are taken as 0; 0: all."""

    keeps = True

    def __init__(self, count: int = 0, alpha: float = 0.5, top: int = 0) -> None:
        self.count = count
        self.alpha = alpha
        self.top = top
        self._score = np.zeros(count)
        self._held = np.full(count, np.inf)  # 0 for who is here

    def came(self, key: int) -> None:
        self._held[key] = 0.0

    def used(self, key: int) -> None:
        pass

    def left(self, key: int) -> None:
        self._held[key] = np.inf

    def routed(self, first: int, shares: Sequence[float]) -> None:
        new = np.array(shares, float)
        if 0 < self.top < len(new):
            new[np.argsort(-new, kind="stable")[self.top :]] = 0.0
        mine = self._score[first : first + len(new)]
        mine *= 1.0 - self.alpha
        mine += self.alpha * new

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        scores = self._score + self._held
        for _ in range(self.count):
            key = int(scores.argmin())
            if np.isinf(scores[key]):
                return None
            if may_leave(key):
                return key
            scores[key] = np.inf
        return None
