"""F16: IEEE half precision.

Paper:  IEEE 754-2019
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   16 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves


class F16:
    name = "F16"
    ggml_type = 1
    block = 1
    layout = np.dtype([("value", "<f2")])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        return halves(b, "value")
