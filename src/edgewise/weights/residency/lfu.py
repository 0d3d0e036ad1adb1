"""Least frequently used, with ageing: uses are counted for ever, halved now and then; among equals the oldest leaves.

Paper:  none (SE-MoE, arXiv 2205.10034, ages its CPU cache of experts like this)
Exact.
Needs:  nothing
Cost:   O(log n) a use (a heap whose stale entries are dropped when they surface)
Status: kept
"""

import heapq
from collections.abc import Callable, Sequence


class Lfu:
    """halve: uses of all bundles together, in rounds of `count`, after which every number of uses is halved."""

    keeps = True

    def __init__(self, count: int = 0, halve: int = 64) -> None:
        self.count = count
        self.halve = halve
        self._uses: dict[int, int] = {}  # of the absent as well
        self._held: set[int] = set()
        self._heap: list[tuple[int, int, int]] = []  # (uses, when, key), some out of date
        self._now = 0

    def came(self, key: int) -> None:
        self._held.add(key)
        heapq.heappush(self._heap, (self._uses.setdefault(key, 0), self._now, key))

    def used(self, key: int) -> None:
        self._now += 1
        self._uses[key] += 1
        if self._now % (self.halve * max(1, self.count)) == 0:
            self._uses = {known: uses // 2 for known, uses in self._uses.items()}
            self._tidy()
        elif len(self._heap) > 8 * len(self._held) + 64:
            self._tidy()
        else:
            heapq.heappush(self._heap, (self._uses[key], self._now, key))

    def left(self, key: int) -> None:
        self._held.discard(key)

    def routed(self, first: int, shares: Sequence[float]) -> None:
        pass

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        passed: list[tuple[int, int, int]] = []
        found = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            uses, _, key = entry
            if key not in self._held or uses != self._uses[key]:
                continue
            if may_leave(key):
                found = key
            passed.append(entry)
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def _tidy(self) -> None:
        self._heap = [(self._uses[key], self._now, key) for key in self._held]
        heapq.heapify(self._heap)
