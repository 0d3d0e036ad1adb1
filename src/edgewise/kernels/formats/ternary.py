"""ternary: x = d * (q - 1), q in 0..2 in fields of two bits, as int2 without its offset.

Paper:  BitNet b1.58, Ma et al., 2024, https://arxiv.org/abs/2402.17764
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   2.25 bits a weight at group 64 (2.5 at 32, 2.125 at 128)
Status: kept
"""

import numpy as np

from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks
from edgewise.kernels.formats.grouped import Grouped, levels, mean, reciprocal, stored


class Ternary(Grouped):
    label, bits = "ternary", 2

    def __init__(self, group: int = 64) -> None:
        super().__init__(group)

    def widen(self, b: Blocks) -> Floats:
        return self.scaled(b, 1)

    def narrow(self, x: Floats) -> Blocks:
        """BitNet's mean of |x|, then the mean of those it keeps: weights that are ternary already keep their step."""
        size = np.abs(x).astype(np.float64)
        kept = size > 0.5 * mean(size, self.block).astype(np.float64)[:, None]
        d = stored(mean(np.where(kept, size, 0.0), kept.sum(-1)))
        return self.pack(levels(x * reciprocal(d)[:, None] + np.float32(1.5), 2), d)
