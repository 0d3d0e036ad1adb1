"""A window that goes round the layers: whoever's turn is farthest away leaves, which is the layer just computed.

Paper:  Li et al., TPI-LLM, arXiv 2410.00531 (sliding window of layers); Shen et al., SE-MoE, arXiv 2205.10034 (ring)
        With more slots than the window needs, this rule keeps as many layers for ever as an oracle would.
Exact.
Needs:  bundles used in the order of their numbers, over and over
Cost:   O(1), but for those pinned that it passes over
Status: kept, the default for layers
"""

from collections.abc import Callable, Sequence


class Ring:
    keeps = True

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self._held: set[int] = set()
        self._at = 0  # whose turn it is, the last one asked for

    def came(self, key: int) -> None:
        self._held.add(key)

    def used(self, key: int) -> None:
        self._at = key

    def left(self, key: int) -> None:
        self._held.discard(key)

    def routed(self, first: int, shares: Sequence[float]) -> None:
        pass

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        now = incoming if wanted else self._at
        ahead = (incoming - now) % self.count  # turns until the newcomer's
        for distance in range(self.count - 1, ahead, -1):
            key = (now + distance) % self.count
            if key in self._held and may_leave(key):
                return key
        return None
