"""Least recently used: whoever was asked for longest ago leaves.

Paper:  Eliseev and Mazur, Fast Inference of MoE Language Models with Offloading, arXiv 2312.17238 (there one for each
        layer; here one for all, so that layers share the room as they need it)
Exact.
Needs:  nothing
Cost:   O(1), but for those pinned that it passes over
Status: kept, the default for experts
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence


class Lru:
    keeps = True

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self._held: OrderedDict[int, None] = OrderedDict()  # longest ago first

    def came(self, key: int) -> None:
        self._held[key] = None

    def used(self, key: int) -> None:
        self._held.move_to_end(key)

    def left(self, key: int) -> None:
        self._held.pop(key, None)

    def routed(self, first: int, shares: Sequence[float]) -> None:
        pass

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        return next(filter(may_leave, self._held), None)
