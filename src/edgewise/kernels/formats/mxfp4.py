"""MXFP4: four-bit floats (E2M1) under a shared power of two (E8M0).

Paper:  https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   4.25 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, nibbles

# E2M1 values doubled, so that they are integers
LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


class MXFP4:
    name = "MXFP4"
    ggml_type = 39
    block = 32
    layout = np.dtype([("e", "u1"), ("qs", "u1", 16)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        exponent = b["e"].astype(np.int32)[:, None] - 128  # the scale is halved because the levels are doubled
        out: Floats = np.ldexp(LEVELS[nibbles(b["qs"])], exponent)
        return out
