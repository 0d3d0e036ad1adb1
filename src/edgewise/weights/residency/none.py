"""Nothing stays: every bundle is read again each time it is wanted. The baseline of offloading papers.

Paper:  none (the "naive reload" of LLM in a flash and of mixtral-offloading)
Exact.
Needs:  nothing
Cost:   O(1)
Status: kept, as a baseline
"""

from collections.abc import Callable, Sequence


class NoResidency:
    keeps = False

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self._held: dict[int, None] = {}

    def came(self, key: int) -> None:
        self._held[key] = None

    def used(self, key: int) -> None:
        pass

    def left(self, key: int) -> None:
        self._held.pop(key, None)

    def routed(self, first: int, shares: Sequence[float]) -> None:
        pass

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        return next(filter(may_leave, self._held), None)
