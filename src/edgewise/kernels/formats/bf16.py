"""BF16: the upper half of a single-precision float.

Paper:  https://arxiv.org/abs/1905.12322
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   16 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks


class BF16:
    name = "BF16"
    ggml_type = 30
    block = 1
    layout = np.dtype([("bits", "<u2")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = (b["bits"].astype(np.uint32) << 16).view(np.float32)[:, None]
        return out
