"""Draws each token as plain decoding would, and keeps the draft for as long as it guessed the same.

At temperature 0 this is greedy verification. When sampling, the draw at a position depends on (seed, position) only, so
the output is token for token the one without speculation under the same seed, not only equal in distribution. A drafted
token x is kept with its own probability p(x), which for a draft that was chosen and not drawn is the most any exact
method can keep.

Paper:  Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023, arXiv:2211.17192 (greedy);
        Miao et al., SpecInfer, 2024, arXiv:2305.09781 (trees)
Exact.
Needs:  nothing
Cost:   one sampled row a kept token; one copy of the row when a rule edits it
Status: kept
"""

from collections.abc import Sequence
from typing import ClassVar

from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView
from edgewise.decode.walking import walk
from edgewise.kernels.api import Floats


class MatchVerifier:
    odds: ClassVar[bool] = False

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        def choose(row: Floats, likeliest: int, position: int, children: Sequence[int]) -> int:
            return self.sampler.sample(row, view.params, view.seed, position, likeliest)

        return walk(view, draft, logits, rules, best, choose)
