"""int2: x = d * q + m, q in 0..3 in fields of two bits; a run is 8 bytes.

Paper:  none; the offset is what HQQ and GPTQ need at this width (https://arxiv.org/abs/2210.17323)
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   2.5 bits a weight at group 64 (3 at 32, 2.25 at 128)
Status: kept
"""

from edgewise.kernels.formats.grouped import Affine


class Int2(Affine):
    label, bits = "int2", 2

    def __init__(self, group: int = 64) -> None:
        super().__init__(group)
