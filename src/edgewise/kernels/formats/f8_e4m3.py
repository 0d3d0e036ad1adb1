"""F8_E4M3 (E4M3FN): sign, 4 bits of exponent, 3 of mantissa; no infinities, all ones is not a number, at most 448.

Paper:  https://arxiv.org/abs/2209.05433
Exact:  the numbers the format means, bit for bit.
Needs:  nothing; a scale for 128 weights or more lies beside the weights
Cost:   8 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks


class F8E4M3:
    name = "F8_E4M3"
    ggml_type = None
    block = 1
    layout = np.dtype([("bits", "u1")])
    largest = 448.0

    @staticmethod
    def widen(b: Blocks) -> Floats:
        code = b["bits"].astype(np.int32)
        exponent, mantissa = code >> 3 & 15, code & 7
        value = np.where(exponent > 0, np.ldexp(8.0 + mantissa, exponent - 10), np.ldexp(mantissa.astype(float), -9))
        value = np.where(code & 127 == 127, np.nan, value)
        out: Floats = np.copysign(value, np.where(code & 128, -1.0, 1.0)).astype(np.float32)[:, None]
        return out
