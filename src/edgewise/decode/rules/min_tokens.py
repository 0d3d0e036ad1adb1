"""The tokens that would end the text cannot be chosen before it has a minimum length.

Paper:  none
Exact.
Needs:  nothing
Cost:   O(ending tokens) a step until the minimum is reached
Status: kept
"""

from collections.abc import Collection

import numpy as np

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats


class MinTokens:
    def __init__(self, least: int, ends: Collection[int]) -> None:
        self.least = least
        self._ends = np.array(sorted(ends), np.intp)

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        if len(seq.tokens) - seq.prompt_tokens < self.least:
            logits[self._ends] = -np.inf
        return logits
