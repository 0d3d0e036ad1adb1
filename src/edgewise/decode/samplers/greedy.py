"""The likeliest token, whatever the request's temperature says; of equals the lowest id.

Paper:  none
Exact.
Needs:  nothing
Cost:   one pass over the row
Status: kept
"""

from edgewise.base import SamplingParams
from edgewise.kernels.api import Floats


class GreedySampler:
    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int) -> int:
        return int(logits.argmax())  # argmax returns the first of equals
