"""IQ4_XS: 8 runs of 32, x = d * (scale - 32) * level[q]; scale six bits.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   4.25 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves, nibbles
from edgewise.kernels.formats.levels import LEVELS


class IQ4XS:
    name = "IQ4_XS"
    ggml_type = 23
    block = 256
    layout = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        run = np.arange(8)
        low = b["scales_l"][:, run // 2] >> (run % 2 * 4) & 15
        scale = low | (b["scales_h"].astype(np.int32)[:, None] >> 2 * run & 3) << 4
        step = halves(b, "d") * (scale - 32).astype(np.float32)  # (blocks, 8)
        out: Floats = (step[..., None] * LEVELS[nibbles(b["qs"].reshape(-1, 8, 16))]).reshape(-1, 256)
        return out
