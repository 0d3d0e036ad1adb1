"""Plain sampling: one token from the logits of the last real token; a draft, if any, is ignored.

Paper:  none
Exact.
Needs:  nothing
Cost:   one copy of the logits row when a rule edits it
Status: kept
"""

from collections.abc import Sequence
from typing import ClassVar

from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView
from edgewise.decode.walking import edited
from edgewise.kernels.api import Floats

FIRST = (0,)


class NoVerifier:
    odds: ClassVar[bool] = False

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        row = edited(view, logits[0], rules)
        token = self.sampler.sample(row, view.params, view.seed, len(view.tokens), -1 if rules else best[0])
        return Accepted(view.seq, (token,), (), FIRST)
