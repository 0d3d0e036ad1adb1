"""GPTQ: columns are rounded one after another, and each one's error is pushed onto the columns still to come.

Paper:  Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022,
        arXiv:2210.17323
Approximate: a row's expected squared output error on the calibration text is at most that of searched rounding.
Needs:  a calibration text: the inputs' second moments, (columns, columns) a matrix
Cost:   columns^3 once a matrix, then 2 * columns operations a weight; about 1 us a weight and core
Status: trial
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.convert.grids import Grid, grid_of
from edgewise.convert.grids.api import Settled, blocks_of, inverse, spread
from edgewise.convert.grids.fitting import search, settle
from edgewise.convert.grids.nearest import codes, nearest
from edgewise.convert.quantisers.api import Statistics, Uses, finite
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes

Order = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]


class GptqQuantiser:
    """damp: of the mean diagonal, added to it. block: columns whose errors are passed on together.

    act_order: columns with the largest inputs first; scales are then fixed before any error is pushed.
    """

    uses: ClassVar[Uses] = "hessian"
    must: ClassVar[bool] = True

    def __init__(self, damp: float = 0.01, block: int = 128, act_order: bool = False) -> None:
        if damp <= 0 or block < 1:
            raise BadInput(f"gptq: damp ({damp}) and block ({block}) must be above 0.")
        self.damp = damp
        self.block = block
        self.act_order = act_order
        self._factored: tuple[Statistics, Floats, Order] | None = None  # of the matrix seen last: it comes in pieces

    def __repr__(self) -> str:
        return f"GptqQuantiser(damp={self.damp}, block={self.block}, act_order={self.act_order})"

    @np.errstate(over="ignore", invalid="ignore")  # squares of weights near float32's end
    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes:
        finite(name, rows)
        grid = grid_of(fmt)
        if grid is None:
            return formats.quantize(fmt, rows)
        importance = None if seen is None else seen.square
        plain = nearest(grid, rows, importance)
        if seen is None or seen.hessian is None:
            return plain
        passed = (self._static if self.act_order else self._moving)(grid, rows, seen)
        return _better_rows(fmt, rows, seen.hessian, passed, plain)

    def _factor(self, seen: Statistics) -> tuple[Floats, Order]:
        """The upper Cholesky factor of the damped inverse, columns in the order they are taken."""
        if self._factored is None or self._factored[0] is not seen:
            assert seen.hessian is not None
            self._factored = None  # room for the next
            squares = seen.hessian.diagonal()
            order = np.argsort(-squares, kind="stable") if self.act_order else np.arange(len(squares))
            back = order[::-1]
            h = seen.hessian[np.ix_(back, back)].astype(np.float64)
            h[np.diag_indices(len(h))] += self.damp * max(float(h.diagonal().mean()), 1e-12)
            # The method wants U with U^T U = H^-1. Of H backwards, L L^T, that is the inverse of L, backwards again.
            upper = inverted(triangle(h))[::-1, ::-1]
            self._factored = seen, np.ascontiguousarray(upper, np.float32), order
        return self._factored[1], self._factored[2]

    def _moving(self, grid: Grid, rows: Floats, seen: Statistics) -> Bytes:
        """Columns in order; each block's scales are searched when its turn comes, on weights that carry the errors."""
        factor, _ = self._factor(seen)
        w = rows.copy()
        step = max(self.block // grid.block, 1) * grid.block
        packed: list[Bytes] = []
        for first in range(0, w.shape[1], step):
            last = min(first + step, w.shape[1])
            errors = np.empty((len(w), last - first), np.float32)
            for begin in range(first, last, grid.block):
                end = begin + grid.block
                x = blocks_of(grid, np.ascontiguousarray(w[:, begin:end]))
                a = spread(grid, np.ascontiguousarray(seen.square[begin:end]), len(w))
                settled, _ = settle(grid, x, *search(grid, x, a), a)
                q = np.empty((len(w), grid.block), np.float32)
                for column in range(begin, end):
                    group = (column - begin) // grid.group
                    q[:, column - begin], value = _round(grid, w[:, column], settled, group)
                    error = (w[:, column] - value) / factor[column, column]
                    w[:, column + 1 : last] -= error[:, None] * factor[column, column + 1 : last]
                    errors[:, column - first] = error
                packed.append(grid.pack(codes(q.reshape(x.shape)), settled))
            w[:, last:] -= errors @ factor[first:last, last:]
        return np.concatenate(packed, axis=1).reshape(-1)

    def _static(self, grid: Grid, rows: Floats, seen: Statistics) -> Bytes:
        """Columns by the size of their inputs, under scales that were searched beforehand."""
        factor, order = self._factor(seen)
        x, a = blocks_of(grid, rows), spread(grid, seen.square, len(rows))
        settled, _ = settle(grid, x, *search(grid, x, a), a)
        scale, offset = (part.reshape(len(rows), -1) for part in (settled.scale, settled.offset))
        w = rows[:, order]
        q = np.empty_like(rows)
        for first in range(0, w.shape[1], self.block):
            last = min(first + self.block, w.shape[1])
            errors = np.empty((len(w), last - first), np.float32)
            for column in range(first, last):
                group = int(order[column]) // grid.group
                part = Settled(scale[:, group, None], offset[:, group, None], {})
                q[:, order[column]], value = _round(grid, w[:, column], part, 0)
                error = (w[:, column] - value) / factor[column, column]
                w[:, column + 1 : last] -= error[:, None] * factor[column, column + 1 : last]
                errors[:, column - first] = error
            w[:, last:] -= errors @ factor[first:last, last:]
        return grid.pack(codes(q.reshape(x.shape)), settled).reshape(-1)


def triangle(h: Doubles, step: int = 256) -> Doubles:
    """L with L L^T = h, in the place of h: numpy's own holds two more matrices of that size."""
    for first in range(0, len(h), step):
        last = first + step
        h[first:, first:last] -= h[first:, :first] @ h[first:last, :first].T
        own = np.linalg.cholesky(h[first:last, first:last])
        h[first:last, first:last] = own
        h[last:, first:last] = h[last:, first:last] @ np.linalg.inv(own).T
        h[first:last, last:] = 0
    return h


def inverted(lower: Doubles, step: int = 256) -> Doubles:
    """The inverse of a lower triangle, in its place."""
    for first in range((len(lower) - 1) // step * step, -1, -step):
        last = first + step
        own = np.linalg.inv(lower[first:last, first:last])
        lower[last:, first:last] = -(lower[last:, last:] @ lower[last:, first:last]) @ own
        lower[first:last, first:last] = np.tril(own)
    return lower


def _round(grid: Grid, column: Floats, settled: Settled, group: int) -> tuple[Floats, Floats]:
    """Codes of one column (rows,) and what they mean, under the scales of one group of every row's block."""
    scale, offset = settled.scale[:, group], settled.offset[:, group]
    q = np.clip(np.rint((column - offset) * inverse(scale)), grid.low, grid.high)
    return q, scale * q + offset


def _better_rows(fmt: str, rows: Floats, hessian: Floats, one: Bytes, other: Bytes) -> Bytes:
    """Row by row whichever leaves the smaller e H e^T."""
    losses = []
    for packed in (one, other):
        e = rows - formats.dequantize(fmt, packed, rows.size).reshape(rows.shape)
        losses.append(((e @ hessian) * e).sum(-1))
    first = losses[0] <= losses[1]  # false where it is no number
    shape = (len(rows), -1)
    out: Bytes = np.where(first[:, None], one.reshape(shape), other.reshape(shape)).reshape(-1)
    return out
