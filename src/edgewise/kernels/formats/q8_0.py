"""Q8_0: x = d * q, q a signed byte.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   8.5 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves


class Q80:
    name = "Q8_0"
    ggml_type = 8
    block = 32
    layout = np.dtype([("d", "<f2"), ("qs", "i1", 32)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * b["qs"].astype(np.float32)
        return out
