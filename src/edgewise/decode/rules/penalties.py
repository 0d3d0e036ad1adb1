"""Repetition, presence and frequency penalties: make what was already said less likely.

Repetition (over prompt and output): a positive logit is divided by the penalty, a negative one multiplied. Presence and
frequency (over the output only, OpenAI's definition): the logit loses presence + frequency * count.

Paper:  Keskar et al., CTRL, 2019, arXiv:1909.05858 (repetition); OpenAI API reference (presence, frequency)
Exact.
Needs:  nothing
Cost:   O(distinct tokens) a step; state is rebuilt from the tokens whenever they shrink
Status: kept
"""

import numpy as np

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats


class Penalties:
    def __init__(self, repetition: float = 1.0, presence: float = 0.0, frequency: float = 0.0) -> None:
        self.repetition = repetition
        self.presence = presence
        self.frequency = frequency
        self._seen: dict[int, int] = {}  # token → how often in the output; 0: only in the prompt
        self._read = 0  # tokens of the sequence already counted

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        tokens, seen = seq.tokens, self._seen
        if len(tokens) < self._read:
            seen.clear()
            self._read = 0
        for at in range(self._read, len(tokens)):
            token = tokens[at]
            seen[token] = seen.get(token, 0) + (at >= seq.prompt_tokens)
        self._read = len(tokens)
        index = np.fromiter(seen, np.intp, len(seen))
        count = np.fromiter(seen.values(), np.float32, len(seen))
        known = index < len(logits)
        index, count = index[known], count[known]
        values = logits[index]
        if self.repetition != 1.0:
            factor = np.float32(self.repetition)
            values = np.where(values > 0, values / factor, values * factor)
        values -= np.float32(self.frequency) * count + np.float32(self.presence) * (count > 0)
        logits[index] = values
        return logits
