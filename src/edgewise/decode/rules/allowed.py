"""Only the named tokens may be chosen.

Paper:  none
Exact.
Needs:  nothing
Cost:   one pass over the row
Status: kept
"""

from collections.abc import Sequence

import numpy as np

from edgewise.decode.api import SeqView
from edgewise.kernels.api import Floats


class Allowed:
    def __init__(self, tokens: Sequence[int]) -> None:
        self._index = np.array(sorted(set(tokens)), np.intp)

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        kept = logits[self._index]
        logits.fill(-np.inf)
        logits[self._index] = kept
        return logits
