"""Q3_K: 16 runs of 16, x = d * (scale - 32) * (q - 4); q three bits, scale six.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   3.4375 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, fields, halves, nibbles


class Q3K:
    name = "Q3_K"
    ggml_type = 11
    block = 256
    layout = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        q = fields(b["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256) | fields(b["hmask"], 1) << 2
        scale = nibbles(b["scales"][:, :8]) | fields(b["scales"][:, 8:], 2) << 4
        step = halves(b, "d") * (scale - 32).astype(np.float32)  # (blocks, 16)
        out: Floats = (step[..., None] * (q - 4).reshape(-1, 16, 16).astype(np.float32)).reshape(-1, 256)
        return out
