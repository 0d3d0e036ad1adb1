"""Nothing is guessed: experts are read when a layer has chosen them.

Paper:  none
Exact.
Needs:  nothing
Cost:   none
Status: kept
"""

from collections.abc import Callable, Sequence


class NoPrefetcher:
    def wants(self, layer: int, chosen: Sequence[int], gate: Callable[[], Sequence[int]]) -> Sequence[int]:
        return ()
