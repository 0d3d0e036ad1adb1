"""Our own formats: a row is a run of blocks of 32, 64 or 128 weights, each block complete in itself.

A block is a half-precision step `d`, for some widths a half-precision offset `m`, then a code of `bits` bits a weight.
Codes lie in runs of 32 weights: of a run's bytes the lowest fields are the first weights, the next fields the next, so
that four neighbouring bytes hold neighbouring weights in each field. A file of a member says what a code means.

`pack` and `codes` are the doors for quantisers that find codes and steps of their own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Blocks, fields, halves

GROUPS = (32, 64, 128)
RUN = 32
LARGEST = np.float32(65504)  # of half precision

Codes = npt.NDArray[np.int32]  # (blocks, group), 0 .. 2**bits - 1


class Grouped:
    """One width at one group. affine: blocks have an offset."""

    label = ""
    bits = 0
    affine = False
    ggml_type = None  # GGUF knows no such format

    def __init__(self, group: int) -> None:
        if group not in GROUPS or not isinstance(group, int):
            raise BadInput(f"{self.label} has groups of {', '.join(map(str, GROUPS))} weights, not {group}. "
                           f"Write {self.label}:group={GROUPS[-1]}.")
        self.name = f"{self.label}:group={group}"
        self.block = group
        parts: list[tuple[Any, ...]] = [("d", "<f2")]
        if self.affine:
            parts.append(("m", "<f2"))
        parts += [(field, "u1", group * width // 8) for field, width in self._planes()]
        self.layout = np.dtype(parts)

    def __repr__(self) -> str:
        return self.name

    def _planes(self) -> list[tuple[str, int]]:
        """Fields that hold the code's bits, lowest first: three bits are two and one."""
        return [("qs", 2), ("qh", 1)] if self.bits == 3 else [("qs", self.bits)]

    def codes(self, b: Blocks) -> Codes:
        total = np.zeros((len(b), self.block), np.int32)
        shift = 0
        for field, width in self._planes():
            total |= fields(b[field].reshape(len(b), self.block // RUN, -1), width).reshape(total.shape) << shift
            shift += width
        return total

    def pack(self, codes: npt.NDArray[Any], d: npt.NDArray[Any], m: npt.NDArray[Any] | None = None) -> Blocks:
        """codes (blocks, group), steps and offsets (blocks,) rounded to half precision → (blocks,) of `layout`."""
        b = np.zeros(len(codes), self.layout)
        b["d"] = _half(d)
        if m is not None:
            b["m"] = _half(m)
        shift = 0
        for field, width in self._planes():
            part = (np.asarray(codes, np.uint8) >> shift) & ((1 << width) - 1)
            runs = part.reshape(len(b), self.block // RUN, 8 // width, -1)
            shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
            b[field] = np.bitwise_or.reduce(runs << shifts, axis=2).reshape(len(b), -1)
            shift += width
        return b

    def widen(self, b: Blocks) -> Floats:
        raise NotImplementedError

    def narrow(self, x: Floats) -> Blocks:
        """(blocks, group) → (blocks,): round to nearest, the slow twin of `formats.quantize`."""
        raise NotImplementedError

    def scaled(self, b: Blocks, zero: int) -> Floats:
        """d * (code - zero)."""
        out: Floats = halves(b, "d") * (self.codes(b) - zero).astype(np.float32)
        return out


class Affine(Grouped):
    """x = d * q + m; the least and the largest weight of a block are its ends."""

    affine = True

    def widen(self, b: Blocks) -> Floats:
        out: Floats = halves(b, "d") * self.codes(b).astype(np.float32) + halves(b, "m")
        return out

    def narrow(self, x: Floats) -> Blocks:
        top = (1 << self.bits) - 1
        low, high, nought = x.min(-1), x.max(-1), np.float32(0)
        d, m = stored((high - low) / np.float32(top) + nought), stored(low + nought)  # no negative zero
        q = levels((x - m[:, None]) * reciprocal(d)[:, None] + np.float32(0.5), top)
        return self.pack(q, d, m)


def _half(x: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    return np.clip(np.asarray(x, np.float32).reshape(-1), -LARGEST, LARGEST).astype(np.float16)


def stored(x: Floats) -> Floats:
    """As half precision keeps it; what is too large becomes the largest."""
    return _half(x).astype(np.float32)


def reciprocal(x: Floats) -> Floats:
    """1 / x, or 0 where that is no finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        r = np.float32(1) / x
    return np.where(np.isfinite(r), r, np.float32(0)).astype(np.float32)


def levels(v: Floats, top: int) -> Codes:
    """The whole part of v, within 0 .. top; not-a-number is 0."""
    return np.where(v > 0, np.minimum(v, np.float32(top)), np.float32(0)).astype(np.int32)


def mean(x: npt.NDArray[np.float64], count: Any) -> Floats:
    """Sums (blocks, group) in double precision, in order, over `count`; 0 where that is 0."""
    total = np.cumsum(x, -1)[:, -1]
    return np.where(np.asarray(count) > 0, total / np.maximum(count, 1), 0.0).astype(np.float32)
