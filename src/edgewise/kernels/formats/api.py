"""What a format's file says: its numbers, the layout of a block, and how to widen blocks slowly and surely."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import Floats

Blocks = npt.NDArray[Any]  # (blocks,) of a format's `layout`


class Format(Protocol):
    name: str
    ggml_type: int | None  # its number in GGUF files, if it has one
    block: int  # weights per block
    layout: np.dtype[Any]  # one block; itemsize is its bytes

    def widen(self, b: Blocks) -> Floats: ...  # (blocks, block)


def nibbles(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """(..., bytes) → (..., 2 * bytes): all low halves, then all high halves."""
    return fields(packed, 4)


def fields(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int32]:
    """(..., bytes) → (..., 8 // bits * bytes): the lowest field of every byte, then the next, and so on."""
    shifts = np.arange(0, 8, bits)[:, None]
    spread = (packed[..., None, :].astype(np.int32) >> shifts) & ((1 << bits) - 1)
    return spread.reshape(*packed.shape[:-1], -1)


def halves(b: Blocks, field: str) -> Floats:
    """A half-precision field of every block as (blocks, 1) float32."""
    widened: Floats = b[field].astype(np.float32)[:, None]
    return widened
