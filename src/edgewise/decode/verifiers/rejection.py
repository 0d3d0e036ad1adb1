"""Speculative sampling: a drawn token x is kept with chance min(1, p(x)/q(x)), else one is drawn from max(0, p - q).

Of siblings each is tried in turn against what is left of p: after a refusal p becomes the normalised max(0, p - q), and
where they were drawn without replacement x leaves q. p is the target's distribution after rules, temperature and
filters. The output has the distribution of plain sampling; it is not the same text under the same seed, since how
often dice are thrown depends on the drafts. Where nothing was drawn (temperature 0, drafts without odds) it does what
plain sampling does, token for token.

Paper:  Leviathan et al., 2023, arXiv:2211.17192; Chen et al., 2023, arXiv:2302.01318; Miao et al., SpecInfer, 2024,
        arXiv:2305.09781 (with replacement); Jeon et al., Recursive Speculative Decoding, 2024, arXiv:2402.14160
        (without)
Exact: in distribution when sampling, bitwise at temperature 0.
Needs:  drafts with odds, or it is plain matching
Cost:   O(vocab) a tried node
Status: kept
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView
from edgewise.decode.samplers.standard import distribution, draw, uniform
from edgewise.decode.walking import walk
from edgewise.kernels.api import Floats

Doubles = npt.NDArray[np.float64]


class RejectionVerifier:
    odds: ClassVar[bool] = True

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        drawn = bool(draft.odds) and view.params.temperature > 0

        def choose(row: Floats, likeliest: int, position: int, children: Sequence[int]) -> int:
            if not (drawn and children):
                return self.sampler.sample(row, view.params, view.seed, position, likeliest)
            p = np.zeros(len(row))
            index, weight = distribution(row, view.params)
            p[index] = weight / weight.sum()
            coins = [uniform(view.seed, position, stream) for stream in range(len(children) + 1)]
            return resolve(p, draft.odds[children[0]], [draft.tokens[i] for i in children], coins, draft.replaced)

        return walk(view, draft, logits, rules, best, choose)


def resolve(p: Doubles, q: Doubles, tokens: Sequence[int], coins: Sequence[float], replaced: bool) -> int:
    """One position. p, q (vocab,), each of sum 1; tokens drawn from q in this order. coins: uniform numbers, the first
    for the draw when all are refused, then one a token. p and q are not edited."""
    for token, coin in zip(tokens, coins[1:], strict=True):
        if coin * q[token] < p[token]:
            return token
        left = np.maximum(p - q, 0.0)
        total = left.sum()
        if total <= 0:  # p = q up to rounding, and rounding was against it
            break
        p = left / total
        if not replaced:
            q = q.copy()
            q[token] = 0.0
            rest = q.sum()
            if rest > 0:
                q /= rest
    return draw(p, coins[0])
