"""int4: x = d * (q - 8), q in 0..15; the weight of largest size becomes -8 steps. A run is 16 bytes, as in Q4_0.

Paper:  none; symmetric round-to-nearest, as in https://arxiv.org/abs/2311.00502
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   4.125 bits a weight at group 128 (4.5 at 32)
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks
from edgewise.kernels.formats.grouped import Grouped, levels, reciprocal, stored


class Int4(Grouped):
    label, bits = "int4", 4

    def __init__(self, group: int = 128) -> None:
        super().__init__(group)

    def widen(self, b: Blocks) -> Floats:
        return self.scaled(b, 8)

    def narrow(self, x: Floats) -> Blocks:
        extreme = np.take_along_axis(x, np.abs(x).argmax(-1)[:, None], -1)[:, 0]
        d = stored(extreme / np.float32(-8))
        return self.pack(levels(x * reciprocal(d)[:, None] + np.float32(8.5), 15), d)
