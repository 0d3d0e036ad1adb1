"""The K formats: 256 weights in groups of 16 or 32, whose scales and offsets are themselves small integers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgewise.convert.grids.api import Codes, Grid, Settled, half, inverse
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes

U8 = npt.NDArray[np.uint8]


def _pack_fields(q: npt.NDArray[Any], bits: int) -> U8:
    """(..., fields * bytes) → (..., bytes): the first run in the lowest bits of every byte, then the next."""
    runs = q.reshape(*q.shape[:-1], 8 // bits, -1)
    out = np.zeros((*runs.shape[:-2], runs.shape[-1]), np.uint8)
    for i in range(8 // bits):
        out |= (runs[..., i, :] << (i * bits)).astype(np.uint8)
    return out


def _levels(x: Floats, most: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Non-negative numbers (blocks, groups) as d * level: d (blocks,) and levels 0..most."""
    d = half(x.max(-1) / most)
    level = np.clip(np.rint(x * inverse(d.astype(np.float32))[:, None]), 0, most)
    return d, level.astype(np.uint8)


@dataclass(frozen=True)
class Signed:
    """Q3_K and Q6_K: x = d * scale * q, scale and q signed."""

    fmt: str
    bits: int
    scale_low: int
    scale_high: int
    block: int = 256
    group: int = 16
    offset: str = "none"

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def settle(self, scale: Floats, offset: Floats) -> Settled:
        # The largest scale takes the longer, negative half of the range.
        extreme = np.take_along_axis(scale, np.abs(scale).argmax(-1)[:, None], -1)[:, 0]
        d = half(extreme / np.float32(self.scale_low))
        levels = np.clip(np.rint(scale * inverse(d.astype(np.float32))[:, None]), self.scale_low, self.scale_high)
        return self._settled(d, levels.astype(np.int32))

    def _settled(self, d: Any, scales: Any) -> Settled:
        step = d.astype(np.float32)[:, None] * scales.astype(np.float32)
        return Settled(step, np.zeros_like(step), {"d": d, "scales": scales})

    def nearby(self, settled: Settled) -> Iterator[Settled]:
        d, scales = settled.fields["d"], settled.fields["scales"]
        for up in (-1, 1):
            yield self._settled(d, np.clip(scales + up, self.scale_low, self.scale_high))

    def pack(self, codes: Codes, settled: Settled) -> Bytes:
        layout = formats.find(self.fmt).layout
        out = np.zeros(len(codes), layout)
        out["d"] = settled.fields["d"]
        q = (codes - self.low).astype(np.uint8).reshape(-1, 256)
        if self.fmt == "Q3_K":
            scales = (settled.fields["scales"] + 32).astype(np.uint8)
            out["qs"] = _pack_fields((q & 3).reshape(-1, 2, 128), 2).reshape(-1, 64)
            out["hmask"] = _pack_fields(q >> 2, 1)
            out["scales"] = np.concatenate([_pack_fields(scales & 15, 4), _pack_fields(scales >> 4, 2)], -1)
        else:
            out["scales"] = settled.fields["scales"]
            out["ql"] = _pack_fields((q & 15).reshape(-1, 2, 128), 4).reshape(-1, 128)
            out["qh"] = _pack_fields((q >> 4).reshape(-1, 2, 128), 2).reshape(-1, 64)
        return out.view(np.uint8).reshape(len(codes), layout.itemsize)


@dataclass(frozen=True)
class Affine:
    """Q2_K, Q4_K and Q5_K: x = d * scale * q - dmin * min, all of them but d and dmin unsigned."""

    fmt: str
    bits: int
    scale_most: int
    group: int
    block: int = 256
    offset: str = "below"
    low: ClassVar[int] = 0

    @property
    def high(self) -> int:
        return (1 << self.bits) - 1

    def settle(self, scale: Floats, offset: Floats) -> Settled:
        d, scales = _levels(np.maximum(scale, 0), self.scale_most)
        dmin, mins = _levels(np.maximum(-offset, 0), self.scale_most)
        return self._settled(d, dmin, scales, mins)

    def _settled(self, d: Any, dmin: Any, scales: Any, mins: Any) -> Settled:
        step = d.astype(np.float32)[:, None] * scales.astype(np.float32)
        drop = dmin.astype(np.float32)[:, None] * mins.astype(np.float32)
        return Settled(step, -drop, {"d": d, "dmin": dmin, "scales": scales, "mins": mins})

    def nearby(self, settled: Settled) -> Iterator[Settled]:
        at = settled.fields
        for up, deeper in product((0, -1, 1), (0, -1, 1)):
            if up or deeper:
                scales, mins = (
                    np.clip(at[name].astype(np.int32) + by, 0, self.scale_most).astype(np.uint8)
                    for name, by in (("scales", up), ("mins", deeper))
                )
                yield self._settled(at["d"], at["dmin"], scales, mins)

    def pack(self, codes: Codes, settled: Settled) -> Bytes:
        layout = formats.find(self.fmt).layout
        out = np.zeros(len(codes), layout)
        out["d"], out["dmin"] = settled.fields["d"], settled.fields["dmin"]
        scales, mins = settled.fields["scales"], settled.fields["mins"]
        q = codes.astype(np.uint8).reshape(-1, 256)
        if self.fmt == "Q2_K":
            out["scales"] = scales | mins << 4
            out["qs"] = _pack_fields(q.reshape(-1, 2, 128), 2).reshape(-1, 64)
        else:
            first = scales[:, :4] | scales[:, 4:] >> 4 << 6
            second = mins[:, :4] | mins[:, 4:] >> 4 << 6
            out["scales"] = np.concatenate([first, second, scales[:, 4:] & 15 | mins[:, 4:] << 4], -1)
            out["qs"] = _pack_fields((q & 15).reshape(-1, 4, 64), 4).reshape(-1, 128)
            if self.fmt == "Q5_K":
                out["qh"] = _pack_fields(q >> 4, 1)
        return out.view(np.uint8).reshape(len(codes), layout.itemsize)


SUPER_BLOCKS: dict[str, Grid] = {
    "Q2_K": Affine("Q2_K", 2, 15, 16),
    "Q3_K": Signed("Q3_K", 3, -32, 31),
    "Q4_K": Affine("Q4_K", 4, 63, 32),
    "Q5_K": Affine("Q5_K", 5, 63, 32),
    "Q6_K": Signed("Q6_K", 6, -128, 127),
}
