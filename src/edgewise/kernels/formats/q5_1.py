"""Q5_1: x = d * q + m, q in 0..31; nibbles as in Q4_1, the fifth bits in qh.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   6 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves, nibbles


class Q51:
    name = "Q5_1"
    ggml_type = 7
    block = 32
    layout = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        high = np.unpackbits(b["qh"], axis=-1, bitorder="little").astype(np.int32)  # bit i belongs to weight i
        out: Floats = halves(b, "d") * (nibbles(b["qs"]) | high << 4).astype(np.float32) + halves(b, "m")
        return out
