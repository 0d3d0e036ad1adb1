"""Typical acceptance: a drafted token stays if likely enough for how unsure the model is. It changes the answer.

A node x is kept if p(x) > min(epsilon, delta * exp(-H(p))), the likeliest such child first; where none is, the token is
drawn as usual. LOSSY when sampling: the output has more of the likely tokens than the model asked for, and how many
more depends on the drafts. At temperature 0 it is greedy matching, exact.

Paper:  Cai et al., Medusa, 2024, arXiv:2401.10774
Approximate.
Needs:  nothing
Cost:   O(vocab) a node
Status: trial
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgewise.base import BadInput
from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView
from edgewise.decode.samplers.standard import distribution
from edgewise.decode.walking import walk
from edgewise.kernels.api import Floats


class TypicalVerifier:
    odds: ClassVar[bool] = False

    def __init__(self, sampler: Sampler, epsilon: float = 0.09, delta: float = 0.3) -> None:
        if not (0 < epsilon <= 1 and 0 < delta <= 1):
            raise BadInput(f"verifier 'typical': epsilon and delta must be in (0, 1], not {epsilon!r} and {delta!r}.")
        self.sampler, self.epsilon, self.delta = sampler, epsilon, delta

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        def choose(row: Floats, likeliest: int, position: int, children: Sequence[int]) -> int:
            if children and view.params.temperature > 0:
                p = np.zeros(len(row))
                index, weight = distribution(row, view.params)
                p[index] = weight / weight.sum()
                some = p[p > 0]
                least = min(self.epsilon, self.delta * float(np.exp((some * np.log(some)).sum())))
                token = max((draft.tokens[i] for i in children), key=lambda t: p[t])
                if p[token] > least:
                    return token
            return self.sampler.sample(row, view.params, view.seed, position, likeliest)

        return walk(view, draft, logits, rules, best, choose)
