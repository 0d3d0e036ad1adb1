"""Our own formats, whose group is their block: int2 and int3 with a scale and an offset, the others with a scale.

int1 is missing: its two levels, -1 and 1, are no neighbouring integers; it is rounded as its format does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.convert.grids.api import Codes, Settled, half
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


@dataclass(frozen=True)
class Own:
    """low: what the stored code 0 means, in steps; stored codes are counted from it."""

    fmt: str
    group: int
    low: int
    high: int
    offset: str = "none"

    @property
    def block(self) -> int:
        return self.group

    def settle(self, scale: Floats, offset: Floats) -> Settled:
        d, m = half(scale), half(offset)
        return Settled(d.astype(np.float32), m.astype(np.float32), {"d": d[:, 0], "m": m[:, 0]})

    def nearby(self, settled: Settled) -> Iterator[Settled]:
        return iter(())

    def pack(self, codes: Codes, settled: Settled) -> Bytes:
        fmt: Any = formats.find(self.fmt)
        m = None if self.offset == "none" else settled.fields["m"]
        packed = fmt.pack(codes[:, 0] - self.zero, settled.fields["d"], m)
        return np.ascontiguousarray(packed).view(np.uint8).reshape(len(codes), fmt.layout.itemsize)

    @property
    def zero(self) -> int:
        return -128 if self.high == 127 else self.low


_LEVELS = {"ternary": (-1, 1, "none"), "int2": (0, 3, "free"), "int3": (0, 7, "free"), "int4": (-8, 7, "none"),
           "int8": (-127, 127, "none")}  # fmt: skip
OWN = {
    f"{name}:group={group}": Own(f"{name}:group={group}", group, *levels)
    for name, levels in _LEVELS.items() for group in formats.GROUPS
}  # fmt: skip
