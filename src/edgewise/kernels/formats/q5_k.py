"""Q5_K: 8 runs of 32, x = d * scale * q - dmin * min; q five bits, scale and min six.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   5.5 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, fields, halves, nibbles
from edgewise.kernels.formats.k_scales import unpack


class Q5K:
    name = "Q5_K"
    ggml_type = 13
    block = 256
    layout = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        scale, low = unpack(b["scales"])
        step, drop = halves(b, "d") * scale, halves(b, "dmin") * low  # (blocks, 8)
        q = (nibbles(b["qs"].reshape(-1, 4, 32)).reshape(-1, 256) | fields(b["qh"], 1) << 4).reshape(-1, 8, 32)
        out: Floats = (step[..., None] * q.astype(np.float32) - drop[..., None]).reshape(-1, 256)
        return out
