"""int8: x = d * (q - 128), q in 1..255 stored as a byte; d = max|x| / 127.

Paper:  none; symmetric round-to-nearest, as in https://arxiv.org/abs/2311.00502
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   8.125 bits a weight at group 128 (8.5 at 32)
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks
from edgewise.kernels.formats.grouped import Grouped, levels, reciprocal, stored


class Int8(Grouped):
    label, bits = "int8", 8

    def __init__(self, group: int = 128) -> None:
        super().__init__(group)

    def widen(self, b: Blocks) -> Floats:
        return self.scaled(b, 128)

    def narrow(self, x: Floats) -> Blocks:
        d = stored(np.abs(x).max(-1) / np.float32(127))
        q = levels(x * reciprocal(d)[:, None] + np.float32(128.5), 255)
        return self.pack(np.maximum(q, 1), d)
