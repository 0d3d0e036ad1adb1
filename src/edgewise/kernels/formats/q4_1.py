"""Q4_1: x = d * q + m, q in 0..15; low nibbles are weights 0..15, high ones 16..31.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   5 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves, nibbles


class Q41:
    name = "Q4_1"
    ggml_type = 3
    block = 32
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * nibbles(b["qs"]).astype(np.float32) + halves(b, "m")
        return out
