"""What every format of scaled integers has in common: x = scale * q + offset over groups, groups stored in blocks.

Arrays are laid out (blocks, groups in a block, weights in a group); scales and offsets lack the last axis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes

Codes = npt.NDArray[np.int32]
LARGEST_HALF = np.float32(65504)


@dataclass(frozen=True)
class Settled:
    """Scales and offsets as a reader will see them, and the fields they are stored as."""

    scale: Floats  # (blocks, groups)
    offset: Floats  # (blocks, groups), 0 where the format has none
    fields: Mapping[str, npt.NDArray[Any]]


class Grid(Protocol):
    """One format. settle rounds scales and offsets to what can be stored; pack takes codes in low..high."""

    @property
    def fmt(self) -> str: ...

    @property
    def block(self) -> int: ...  # weights stored together

    @property
    def group(self) -> int: ...  # weights with one scale

    @property
    def low(self) -> int: ...

    @property
    def high(self) -> int: ...

    @property
    def offset(self) -> str: ...  # "none", "free", or "below": never above 0

    def settle(self, scale: Floats, offset: Floats) -> Settled: ...

    # the same blocks with each group's stored scale and offset a step up or down, where those are small integers
    def nearby(self, settled: Settled) -> Iterator[Settled]: ...

    def pack(self, codes: Codes, settled: Settled) -> Bytes: ...  # (blocks, bytes of a block)


def half(x: Floats) -> npt.NDArray[np.float16]:
    """Rounded to half precision; what is beyond its range becomes its largest number, what is no number 0."""
    return np.clip(np.nan_to_num(x), -LARGEST_HALF, LARGEST_HALF).astype(np.float16)


def inverse(scale: Floats) -> Floats:
    """1 / scale; 0 where that is not a number to work with, so that such a group gets code 0."""
    usable = np.abs(scale) > np.float32(1e-30)
    out: Floats = np.where(usable, 1 / np.where(usable, scale, 1), 0).astype(np.float32)
    return out


def round_to(grid: Grid, x: Floats, scale: Floats, offset: Floats) -> Floats:
    """The nearest codes, as whole float32. x (..., group), scale and offset (...)."""
    q = x - offset[..., None] if grid.offset != "none" else x.copy()
    q *= inverse(scale)[..., None]
    np.rint(q, out=q)
    return np.clip(q, grid.low, grid.high, out=q)


def widen(q: Floats, settled: Settled) -> Floats:
    """The numbers that codes mean: (blocks, groups, group)."""
    out: Floats = settled.scale[..., None] * q
    out += settled.offset[..., None]
    return out


def blocks_of(grid: Grid, rows: Floats) -> Floats:
    """(count, columns) → (blocks, groups in a block, group), a view."""
    return rows.reshape(-1, grid.block // grid.group, grid.group)


def spread(grid: Grid, importance: Floats, count: int) -> Floats:
    """Importance of columns (columns,) for `count` rows → (count * blocks of a row, groups, group), read-only."""
    one = importance.reshape(1, -1, grid.block // grid.group, grid.group)
    whole = np.broadcast_to(one, (count, *one.shape[1:]))
    return whole.reshape(-1, *one.shape[2:])
