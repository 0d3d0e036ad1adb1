"""The formats whose group is their block: Q4_0, Q5_0, Q8_0 with a scale, Q4_1 and Q5_1 with a scale and an offset."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgewise.convert.grids.api import Codes, Settled, half
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


@dataclass(frozen=True)
class Plain:
    fmt: str
    bits: int
    offset: str = "none"
    group: int = 32
    block: int = 32

    @property
    def low(self) -> int:
        if self.bits == 8:
            return -127
        return 0 if self.offset != "none" else -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return self.low + (1 << self.bits) - 1 if self.bits < 8 else 127

    def settle(self, scale: Floats, offset: Floats) -> Settled:
        d, m = half(scale), half(offset)
        return Settled(d.astype(np.float32), m.astype(np.float32), {"d": d[:, 0], "m": m[:, 0]})

    def nearby(self, settled: Settled) -> Iterator[Settled]:
        return iter(())

    def pack(self, codes: Codes, settled: Settled) -> Bytes:
        layout = formats.find(self.fmt).layout
        out = np.zeros(len(codes), layout)
        for name in ("d", "m"):
            if name in (layout.names or ()):
                out[name] = settled.fields[name]
        if self.bits == 8:
            out["qs"] = codes[:, 0]
        else:
            q = (codes[:, 0] - self.low).astype(np.uint8)  # (blocks, 32)
            out["qs"] = q[:, :16] & 15 | q[:, 16:] << 4
            if self.bits == 5:
                out["qh"] = np.packbits(q >> 4, axis=-1, bitorder="little")
        return out.view(np.uint8).reshape(len(codes), layout.itemsize)


PLAIN = {
    grid.fmt: grid
    for grid in (Plain("Q4_0", 4), Plain("Q4_1", 4, "free"), Plain("Q5_0", 5), Plain("Q5_1", 5, "free"),
                 Plain("Q8_0", 8))
}  # fmt: skip
