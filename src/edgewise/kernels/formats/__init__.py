"""Block formats of weights: sizes, widening to float32, narrowing from it. One file per format; the table is below.

The functions here run csrc/formats, several threads at once and without the GIL. Each format's own file is its
specification and a slow numpy twin, which equals the native code bit for bit.
"""

import os
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Catalog, Unsupported
from edgewise.kernels.api import Floats
from edgewise.kernels.formats.api import Format
from edgewise.kernels.formats.grouped import GROUPS

FORMATS = Catalog("format", __name__, {
    "F32": ".f32:F32",
    "F16": ".f16:F16",
    "BF16": ".bf16:BF16",
    "F8_E4M3": ".f8_e4m3:F8E4M3",
    "F8_E5M2": ".f8_e5m2:F8E5M2",
    "Q4_0": ".q4_0:Q40",
    "Q4_1": ".q4_1:Q41",
    "Q5_0": ".q5_0:Q50",
    "Q5_1": ".q5_1:Q51",
    "Q8_0": ".q8_0:Q80",
    "Q2_K": ".q2_k:Q2K",
    "Q3_K": ".q3_k:Q3K",
    "Q4_K": ".q4_k:Q4K",
    "Q5_K": ".q5_k:Q5K",
    "Q6_K": ".q6_k:Q6K",
    "IQ4_NL": ".iq4_nl:IQ4NL",
    "IQ4_XS": ".iq4_xs:IQ4XS",
    "MXFP4": ".mxfp4:MXFP4",
    "int1": ".int1:Int1",
    "ternary": ".ternary:Ternary",
    "int2": ".int2:Int2",
    "int3": ".int3:Int3",
    "int4": ".int4:Int4",
    "int8": ".int8:Int8",
})
FLOAT8 = ("F8_E4M3", "F8_E5M2")  # 8-bit floats: scales lie beside the weights, one for SPAN of a row
SPAN = 128
OWN = ("int1", "ternary", "int2", "int3", "int4", "int8")  # ours: the group is a setting, as in int4:group=128

Bytes = npt.NDArray[np.uint8]

__all__ = [
    "FLOAT8", "FORMATS", "GROUPS", "OWN", "SPAN", "Format", "by_ggml_type", "dequantize", "find",
    "in_blocks", "names", "nbytes",
    "quantize", "spread", "writable",
]  # fmt: skip


@cache
def find(fmt: str) -> Format:
    """The specification of a format; its `name` is the one to store. Raises Unsupported, naming the nearest, when there
    is none, and BadInput for a setting that does not exist ("int4:group=48")."""
    found: Format = FORMATS.build(fmt)
    return found if found.name == fmt else find(found.name)


def names() -> list[str]:
    """Every format, ours at each of their groups."""
    return [n for f in FORMATS for n in ([f"{f}:group={g}" for g in GROUPS] if f in OWN else [f])]


@cache
def by_ggml_type(number: int) -> Format:
    """The format with this number in GGUF files."""
    for name in FORMATS:
        if find(name).ggml_type == number:
            return find(name)
    known = ", ".join(name for name in FORMATS if name not in OWN)
    raise Unsupported(f"ggml type {number} is not a weight format edgewise reads. Known: {known}.")


def writable() -> list[str]:
    """Names of the formats `quantize` can make."""
    return [row[0] for row in _engine().formats() if row[4]]


def nbytes(fmt: str, n: int) -> int:
    """Bytes of `n` weights; n is a multiple of the format's block."""
    spec = find(fmt)
    if n < 0 or n % spec.block:
        raise BadInput(f"{fmt} stores whole blocks of {spec.block} weights, not {n}.")
    return n // spec.block * spec.layout.itemsize


def dequantize(fmt: str, data: Any, n: int, threads: int | None = None) -> Floats:
    """`n` weights from stored bytes (anything with a buffer) → (n,) float32, exactly the numbers the format means."""
    packed = np.frombuffer(data, np.uint8)
    if packed.size != nbytes(fmt, n):
        raise BadInput(f"{n} weights of {fmt} take {nbytes(fmt, n)} bytes, but there are {packed.size}.")
    out = np.empty(n, np.float32)
    _engine().dequantize(find(fmt).name, packed, out, threads or _threads())
    return out


def quantize(fmt: str, values: npt.NDArray[Any], threads: int | None = None) -> Bytes:
    """Weights of any shape, read in row order → their stored bytes (nbytes,), uint8."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    packed = np.empty(nbytes(fmt, flat.size), np.uint8)
    name = find(fmt).name
    if name not in writable():
        raise Unsupported(f"{fmt} can be read but not written. Writable: {', '.join(writable())}.")
    _engine().quantize(name, flat, packed, threads or _threads())
    return packed


def in_blocks(fmt: str, values: Floats, high: int = SPAN, wide: int = SPAN) -> tuple[Bytes, Floats]:
    """(rows, cols) → codes of an 8-bit float (rows, cols) and scales, one for each block of high x wide weights: the
    largest of a block becomes the format's largest number."""
    rows, cols = values.shape
    largest = np.float32(getattr(find(fmt), "largest"))  # noqa: B009  # of 8-bit floats only
    padded = np.pad(np.abs(values), ((0, -rows % high), (0, -cols % wide)))
    peaks = padded.reshape(padded.shape[0] // high, high, -1, wide).max((1, 3))
    scales: Floats = np.where(peaks > 0, peaks / largest, np.float32(1)).astype(np.float32)
    every = np.repeat(np.repeat(scales, high, 0)[:rows], wide, 1)[:, :cols]
    return quantize(fmt, values / every).reshape(rows, cols), scales


def spread(scales: Floats, rows: int) -> Floats:
    """Scales of blocks of 128 x 128 → (rows, spans), as `Device.load` takes them."""
    return np.ascontiguousarray(np.repeat(scales, SPAN, axis=0)[:rows])


def _engine() -> Any:
    from edgewise import _native  # late, so that the specifications can be read without the extension

    return _native


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
