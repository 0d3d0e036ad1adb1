"""IQ4_NL: x = d * level[q], sixteen levels that are denser near zero.

Paper:  none; the format of ggml, https://github.com/ggml-org/ggml
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   4.5 bits a weight
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves, nibbles
from edgewise.kernels.formats.levels import LEVELS


class IQ4NL:
    name = "IQ4_NL"
    ggml_type = 20
    block = 32
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    @staticmethod
    def widen(b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * LEVELS[nibbles(b["qs"])]
        return out
