"""A thought that has used up its tokens is ended: what closes it is the only thing that can be drawn.

The count begins after the tag that opens the thought, wherever that is. Nothing is changed before, nor afterwards.

Paper:  Muennighoff et al., s1: Simple test-time scaling, 2025, arXiv:2501.19393 (budget forcing)
Exact.
Needs:  to be told which tokens open and close a thought
Cost:   O(new tokens) a step, and one pass over the row while it closes
Status: kept
"""

from collections.abc import Callable, Sequence

import numpy as np

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats

Sees = Callable[[Sequence[int]], bool]
TAIL = 64  # tokens that are shown at once


class ThinkingBudget:
    """budget: tokens of the thought. closing: tokens that end it. opened, closed: whether a text's last token has just
    opened or closed one. inside: the prompt opened it."""

    def __init__(self, budget: int, closing: Sequence[int], opened: Sees, closed: Sees, *, inside: bool) -> None:
        self.budget, self.closing = budget, tuple(closing)
        self._opened, self._closed, self._inside = opened, closed, inside
        self._forget()

    def _forget(self) -> None:
        self._seen = 0  # tokens of the output
        self._begin = 0 if self._inside else -1  # of the thought in the output
        self._over = False

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        output = seq.tokens[seq.prompt_tokens :]
        if len(output) < self._seen:  # drafted tokens were taken back
            self._forget()
        while self._seen < len(output) and not self._over:
            self._seen += 1
            if self._begin < 0:
                if self._opened(output[max(0, self._seen - TAIL) : self._seen]):
                    self._begin = self._seen
            else:
                self._over = self._closed(output[max(self._begin, self._seen - TAIL) : self._seen])
        self._seen = len(output)
        forced = len(output) - self._begin - self.budget
        if self._over or self._begin < 0 or not 0 <= forced < len(self.closing):
            return logits
        token = self.closing[forced]
        logits.fill(-np.inf)
        logits[token] = 0
        return logits
