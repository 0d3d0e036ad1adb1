"""F32: IEEE single precision.

Paper:  IEEE 754-2019
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   32 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks


class F32:
    name = "F32"
    ggml_type = 0
    block = 1
    layout = np.dtype([("value", "<f4")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = b["value"][:, None]
        return out
