"""Another rule, but only for what follows the thought: to it, the thought is a part of the prompt.

Paper:  none
Exact.
Needs:  to be told which tokens close a thought
Cost:   O(new tokens) a step, beside the other rule's
Status: kept
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from edgewise.base import BadInput
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.kernels.api import Floats

TAIL = 64  # tokens that are shown at once


class Afterwards:
    """closed: whether a text's last token has just closed the thought. opening: tokens that begin one, where the model
    may do without; (): the prompt began it. ends: tokens that would end the text; not before the thought is closed."""

    def __init__(
        self, inner: LogitsRule, closed: Callable[[Sequence[int]], bool], opening: Sequence[int] = (),
        ends: Collection[int] = (),
    ) -> None:  # fmt: skip
        self._inner, self._closed, self._opening = inner, closed, list(opening)
        self._ends = np.array(sorted(ends), np.intp)
        self._seen, self._end = 0, -1

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        output, opening = list(seq.tokens[seq.prompt_tokens :]), self._opening
        if len(output) < max(self._seen, self._end):  # drafted tokens were taken back
            self._seen, self._end = 0, -1
        if len(output) < len(opening) and output == opening[: len(output)]:
            return self._either(seq, logits, opening[len(output)])
        if output[: len(opening)] != opening:
            self._end = 0
        while self._seen < len(output) and self._end < 0:
            self._seen += 1
            if self._closed(output[max(0, self._seen - TAIL) : self._seen]):
                self._end = self._seen
        if self._end < 0:
            logits[self._ends] = -np.inf
            return logits
        return self._inner.apply(replace(seq, prompt_tokens=seq.prompt_tokens + self._end), logits)

    def _either(self, seq: SeqView, logits: Floats, token: int) -> Floats:
        """What the rule allows, or more of the tag."""
        more = logits[token]
        try:
            logits = self._inner.apply(seq, logits)
        except BadInput:  # it knows nothing that begins like the tag: this will be a thought
            logits.fill(-np.inf)
        logits[token] = more
        return logits
