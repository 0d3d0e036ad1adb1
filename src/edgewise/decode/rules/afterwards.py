"""Another rule, but only for what follows the thought: to it, the thought is a part of the prompt.

Paper:  none
Exact.
Needs:  to be told which tokens close a thought
Cost:   O(new tokens) a step, beside the other rule's
Status: kept
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgewise.decode.api import LogitsRule, SeqView
from edgewise.kernels.api import Floats

TAIL = 64  # tokens that are shown at once


class Afterwards:
    """closed: whether a text's last token has just closed the thought. opening: the token that begins one, where the
    model may do without; -1: the prompt began it."""

    def __init__(self, inner: LogitsRule, closed: Callable[[Sequence[int]], bool], opening: int = -1) -> None:
        self._inner, self._closed, self._opening = inner, closed, opening
        self._seen, self._end = 0, -1

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        output = seq.tokens[seq.prompt_tokens :]
        if len(output) < max(self._seen, self._end):  # drafted tokens were taken back
            self._seen, self._end = 0, -1
        if self._opening >= 0 and not output:
            begin = logits[self._opening]
            logits = self._inner.apply(seq, logits)
            logits[self._opening] = begin
            return logits
        if self._opening >= 0 and output[0] != self._opening:
            self._end = 0
        while self._seen < len(output) and self._end < 0:
            self._seen += 1
            if self._closed(output[max(0, self._seen - TAIL) : self._seen]):
                self._end = self._seen
        if self._end < 0:
            return logits
        return self._inner.apply(replace(seq, prompt_tokens=seq.prompt_tokens + self._end), logits)
