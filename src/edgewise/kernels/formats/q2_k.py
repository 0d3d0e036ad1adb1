"""Q2_K: 16 runs of 16, x = d * scale * q - dmin * min; q two bits, scale and min four.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   2.625 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, fields, halves


class Q2K:
    name = "Q2_K"
    ggml_type = 10
    block = 256
    layout = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        q = fields(b["qs"].reshape(-1, 2, 32), 2).reshape(-1, 16, 16).astype(np.float32)
        scale = halves(b, "d") * (b["scales"] & 15).astype(np.float32)
        low = halves(b, "dmin") * (b["scales"] >> 4).astype(np.float32)
        out: Floats = (scale[..., None] * q - low[..., None]).reshape(-1, 256)
        return out
