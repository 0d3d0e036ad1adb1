"""int3: x = d * q + m, q in 0..7: the two low bits as in int2, then the high bits as in int1.

Paper:  none; the offset is what HQQ and GPTQ need at this width (https://arxiv.org/abs/2210.17323)
Exact:  the numbers the format means, bit for bit.
Needs:  nothing
Cost:   3.5 bits a weight at group 64 (4 at 32, 3.25 at 128)
Status: kept
"""

from edgewise.kernels.formats.grouped import Affine


class Int3(Affine):
    label, bits = "int3", 3

    def __init__(self, group: int = 64) -> None:
        super().__init__(group)
