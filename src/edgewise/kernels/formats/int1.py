"""int1: x = d * (2q - 1), q in 0..1 in single bits; d is the mean of |x|. A run is 4 bytes.

Paper:  XNOR-Net, Rastegari et al., 2016, https://arxiv.org/abs/1603.05279 (the mean as the best step of a sign)
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   1.25 bits a weight at group 64 (1.5 at 32, 1.125 at 128)
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, halves
from edgewise.kernels.formats.grouped import Grouped, mean


class Int1(Grouped):
    label, bits = "int1", 1

    def __init__(self, group: int = 64) -> None:
        super().__init__(group)

    def widen(self, b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * (2 * self.codes(b) - 1).astype(np.float32)
        return out

    def narrow(self, x: Floats) -> Blocks:
        return self.pack(x >= 0, mean(np.abs(x).astype(np.float64), self.block))
