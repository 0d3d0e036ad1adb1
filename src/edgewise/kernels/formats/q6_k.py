"""Q6_K: 16 runs of 16, x = d * scale * (q - 32); q six bits, scale a signed byte.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   6.5625 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, fields, halves, nibbles


class Q6K:
    name = "Q6_K"
    ggml_type = 14
    block = 256
    layout = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        q = nibbles(b["ql"].reshape(-1, 2, 64)) | fields(b["qh"].reshape(-1, 2, 32), 2) << 4
        step = halves(b, "d") * b["scales"].astype(np.float32)  # (blocks, 16)
        out: Floats = (step[..., None] * (q - 32).reshape(-1, 16, 16).astype(np.float32)).reshape(-1, 256)
        return out
