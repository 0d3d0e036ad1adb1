"""Adds a number to the logits of named tokens.

Paper:  OpenAI API reference, logit_bias
Exact.
Needs:  nothing
Cost:   O(named tokens) a step
Status: kept
"""

from collections.abc import Mapping

import numpy as np

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats


class Bias:
    def __init__(self, bias: Mapping[int, float]) -> None:
        self._index = np.array([int(token) for token in bias], np.intp)
        self._value = np.array(list(bias.values()), np.float32)

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        logits[self._index] += self._value
        return logits
