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

FORMATS = Catalog("format", __name__, {
    "F32": ".f32:F32",
    "F16": ".f16:F16",
    "BF16": ".bf16:BF16",
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
})

Bytes = npt.NDArray[np.uint8]

__all__ = ["FORMATS", "Format", "by_ggml_type", "dequantize", "find", "nbytes", "quantize", "writable"]


@cache
def find(fmt: str) -> type[Format]:
    """The specification of a format. Raises Unsupported, naming the nearest, when there is none."""
    found: type[Format] = FORMATS.load(fmt)
    return found


@cache
def by_ggml_type(number: int) -> type[Format]:
    """The format with this number in GGUF files."""
    for name in FORMATS:
        if find(name).ggml_type == number:
            return find(name)
    raise Unsupported(f"ggml type {number} is not a weight format edgewise reads. Known: {', '.join(FORMATS)}.")


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
    _engine().dequantize(fmt, packed, out, threads or _threads())
    return out


def quantize(fmt: str, values: npt.NDArray[Any], threads: int | None = None) -> Bytes:
    """Weights of any shape, read in row order → their stored bytes (nbytes,), uint8."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    packed = np.empty(nbytes(fmt, flat.size), np.uint8)
    if fmt not in writable():
        raise Unsupported(f"{fmt} can be read but not written. Writable: {', '.join(writable())}.")
    _engine().quantize(fmt, flat, packed, threads or _threads())
    return packed


def _engine() -> Any:
    from edgewise import _native  # late, so that the specifications can be read without the extension

    return _native


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
