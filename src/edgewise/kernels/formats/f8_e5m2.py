"""F8_E5M2: sign, 5 bits of exponent, 2 of mantissa, infinities: the upper half of an F16 number; at most 57344.

Paper:  https://arxiv.org/abs/2209.05433
Exact:  the numbers the format means, bit for bit.
Needs:  nothing; a scale for 128 weights or more lies beside the weights
Cost:   8 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks


class F8E5M2:
    name = "F8_E5M2"
    ggml_type = None
    block = 1
    layout = np.dtype([("bits", "u1")])
    largest = 57344.0

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = (b["bits"].astype(np.uint16) << 8).view(np.float16).astype(np.float32)[:, None]
        return out
