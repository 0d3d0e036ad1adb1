"""No speculation: drafts nothing, so each step yields one token a sequence.

Paper:  none
Exact.
Needs:  nothing
Cost:   nothing
Status: kept
"""

from collections.abc import Sequence
from typing import ClassVar

from edgewise.base import Cap, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target

NOTHING = Draft()


class NoSpeculator:
    needs: ClassVar[frozenset[Cap]] = frozenset()
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def prepare(self, target: Target) -> int:
        return 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        pass

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        return [NOTHING] * len(seqs)

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        pass

    def end(self, seq: SeqId) -> None:
        pass
