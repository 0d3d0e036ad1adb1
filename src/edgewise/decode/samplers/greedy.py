"""The likeliest token, whatever the request's temperature says; of equals the lowest id.

Paper:  none
Exact.
Needs:  nothing
Cost:   nothing where the device knows, else one pass over the row
Status: kept
"""

from edgewise.base import SamplingParams
from edgewise.kernels.api import Floats


class GreedySampler:
    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int, best: int = -1) -> int:
        return best if best >= 0 else int(logits.argmax())  # argmax returns the first of equals
