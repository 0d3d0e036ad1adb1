"""Plain sampling: one token from the logits of the last real token; a draft, if any, is ignored.

Paper:  none
Exact.
Needs:  nothing
Cost:   one copy of the logits row when a rule edits it
Status: kept
"""

from collections.abc import Sequence

import numpy as np

from edgewise.base import BadInput
from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView
from edgewise.kernels.api import Floats

FIRST = (0,)


class NoVerifier:
    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        row, likeliest = logits[0], best[0]
        if rules:
            likeliest = -1
            row = row.copy()  # the device owns the logits, and log probabilities are taken from them as they are
            for rule in rules:
                row = rule.apply(view, row)
            if row.max() == -np.inf:
                raise BadInput("No token is left: allowed_token_ids, logit_bias and min_tokens together forbid all.")
        token = self.sampler.sample(row, view.params, view.seed, len(view.tokens), likeliest)
        return Accepted(view.seq, (token,), (), FIRST)
