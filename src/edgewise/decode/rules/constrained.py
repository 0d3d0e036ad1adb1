"""Only tokens that keep the text within a grammar may be chosen, and its end only where the grammar may end.

The automaton reads bytes, so that a token may begin or end inside a character. Its state follows from the output's
tokens: it is fed what is new, and taken back to where they last agreed.

Paper:  Willard and Louf, Efficient Guided Generation for Large Language Models, 2023, arXiv:2307.09702;
        https://github.com/guidance-ai/llguidance
Exact.
Needs:  llguidance, a tokenizer
Cost:   a mask of the vocabulary a step: some 10 to 100 µs, and as much to apply it (`edgewise bench structured`)
Status: kept
"""

from typing import TYPE_CHECKING

import numpy as np

from edgewise.base import BadInput
from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Constrained:
    """matcher: at its beginning, this sequence's own."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher
        self._fed: list[int] = []

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        self._follow(list(seq.tokens[seq.prompt_tokens :]))
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise BadInput(f"The grammar cannot go on after this text ({self._matcher.stop_reason()}).")
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        np.copyto(logits, np.float32(-np.inf), where=~allowed)
        return logits

    def _follow(self, output: list[int]) -> None:
        fed, matcher = self._fed, self._matcher
        if output[: len(fed)] != fed:
            pairs = enumerate(zip(fed, output, strict=False))
            same = next((at for at, (old, new) in pairs if old != new), len(output))
            matcher.rollback(len(fed) - same)
            del fed[same:]
        fresh = output[len(fed) :]
        taken = matcher.try_consume_tokens(fresh)
        fed += fresh[:taken]
        if taken < len(fresh):
            raise BadInput(f"Token {fresh[taken]} left the grammar of this text.")
