"""No tuner: the default stays, and nothing is measured.

Paper:  none
Exact.
Needs:  nothing
Cost:   none
Status: kept
"""

from collections.abc import Sequence

from edgewise.plan.api import Knobs, Reading


class NoTuner:
    def __init__(self, candidates: Sequence[Knobs] = ()) -> None:
        self.candidates = candidates

    def ask(self) -> Knobs | None:
        return None

    def tell(self, knobs: Knobs, reading: Reading | None) -> None:
        pass

    def best(self) -> Knobs:
        return {}

    def left(self) -> int:
        return 0
