"""Q4_0: x = d * (q - 8), q in 0..15; low nibbles are weights 0..15, high ones 16..31.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   4.5 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves, nibbles


class Q40:
    name = "Q4_0"
    ggml_type = 2
    block = 32
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * (nibbles(b["qs"]) - 8).astype(np.float32)
        return out
