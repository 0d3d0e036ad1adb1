"""Tensors read a few rows at a time, so that no writer ever holds a whole one: stored, gathered, shifted, random.

A tensor of shape (..., columns) is a list of rows. `raw` gives rows as they are stored; `values` widens them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.weights.api import Source, TensorInfo

Bytes = npt.NDArray[np.uint8]
Rowlist = npt.NDArray[np.int64]
CHUNK_WEIGHTS = 1 << 22  # 16 MiB of float32


class Rows(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...  # outermost first

    @property
    def format(self) -> str: ...

    def raw(self, first: int, count: int) -> Bytes: ...  # rows [first, first + count), stored bytes


def row_count(rows: Rows) -> int:
    return prod(rows.shape[:-1])


def stored_bytes(rows: Rows) -> int:
    return formats.nbytes(rows.format, prod(rows.shape))


def values(rows: Rows, first: int, count: int) -> Floats:
    """(count, columns) float32."""
    columns = rows.shape[-1]
    return formats.dequantize(rows.format, rows.raw(first, count), count * columns).reshape(count, columns)


def chunks(rows: Rows) -> Iterator[tuple[int, int]]:
    """(first, count) runs of rows that together are the tensor."""
    step = max(1, CHUNK_WEIGHTS // max(rows.shape[-1], 1))
    total = row_count(rows)
    for first in range(0, total, step):
        yield first, min(step, total - first)


@dataclass(frozen=True)
class StoredRows:
    """A tensor of a checkpoint."""

    info: TensorInfo
    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def format(self) -> str:
        return self.info.format

    def raw(self, first: int, count: int) -> Bytes:
        row_bytes = formats.nbytes(self.format, self.shape[-1])
        return np.frombuffer(self.source.read(self.info.extent, first * row_bytes, count * row_bytes), np.uint8)


@dataclass(frozen=True)
class GatheredRows:
    """Rows picked from several tensors of one width, in the order of `parts`."""

    shape: tuple[int, ...]
    parts: Sequence[tuple[Rows, Rowlist]]

    @cached_property
    def format(self) -> str:
        found = {part.format for part, _ in self.parts}
        return found.pop() if len(found) == 1 else "F32"

    @cached_property
    def _starts(self) -> Rowlist:
        return np.cumsum([0, *(len(index) for _, index in self.parts)])

    def raw(self, first: int, count: int) -> Bytes:
        row_bytes = formats.nbytes(self.format, self.shape[-1])
        out = np.empty((count, row_bytes), np.uint8)
        part = int(np.searchsorted(self._starts, first, "right")) - 1
        done = 0
        while done < count:
            rows, index = self.parts[part]
            at = first + done - int(self._starts[part])
            wanted = index[at : at + count - done]
            out[done : done + len(wanted)] = self._pick(rows, wanted, row_bytes)
            done += len(wanted)
            part += 1
        return out.reshape(-1)

    def _pick(self, rows: Rows, wanted: Rowlist, row_bytes: int) -> Bytes:
        low, high = int(wanted.min()), int(wanted.max()) + 1
        if high - low > 4 * len(wanted):  # far apart: halves, until each is worth one read
            middle = len(wanted) // 2
            halves = wanted[:middle], wanted[middle:]
            return np.concatenate([self._pick(rows, half, row_bytes) for half in halves])
        if rows.format == self.format:
            block = rows.raw(low, high - low).reshape(-1, row_bytes)
        else:
            block = values(rows, low, high - low).view(np.uint8)
        return block if high - low == len(wanted) and _ascending(wanted) else block[wanted - low]


def _ascending(index: Rowlist) -> bool:
    return len(index) < 2 or bool((np.diff(index) == 1).all())


@dataclass(frozen=True)
class ComputedRows:
    """Numbers made on demand: `make(first, count)` gives (count, columns)."""

    shape: tuple[int, ...]
    make: Callable[[int, int], Floats]
    format: str = "F32"

    def raw(self, first: int, count: int) -> Bytes:
        made = np.ascontiguousarray(self.make(first, count), np.float32)
        return made.reshape(-1).view(np.uint8) if self.format == "F32" else formats.quantize(self.format, made)


def constant(array: npt.NDArray[np.float32], fmt: str = "F32") -> ComputedRows:
    """A small array as a tensor."""
    flat = array.reshape(-1, array.shape[-1])
    return ComputedRows(array.shape, lambda first, count: flat[first : first + count], fmt)
