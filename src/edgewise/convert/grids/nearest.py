"""Rows rounded to nearest under searched scales, never worse than the format's own plain rounding."""

import numpy as np

from edgewise.convert.grids.api import Codes, Grid, blocks_of, spread, widen
from edgewise.convert.grids.fitting import error_of, search, settle
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


def codes(q: Floats) -> Codes:
    return q.astype(np.int32)


@np.errstate(over="ignore", invalid="ignore")  # squares of weights near float32's end
def nearest(grid: Grid, rows: Floats, importance: Floats | None) -> Bytes:
    """(count, columns) → stored bytes. importance (columns,): what an error in each column costs; None: all alike."""
    x = blocks_of(grid, rows)
    a = None if importance is None else spread(grid, importance, len(rows))
    settled, q = settle(grid, x, *search(grid, x, a), a)
    return better_blocks(grid, x, grid.pack(codes(q), settled), widen(q, settled), a)


def better_blocks(grid: Grid, x: Floats, packed: Bytes, y: Floats, a: Floats | None, p: float = 2.0) -> Bytes:
    """Stored bytes, block by block the given ones (which mean y) or plain rounding, whichever errs less.

    The error is the sum of a * |x - y| ** p.
    """
    plain = formats.quantize(grid.fmt, x)
    z = formats.dequantize(grid.fmt, plain, x.size).reshape(x.shape)
    ours, theirs = (
        error_of(x, one, a) if p == 2.0 else (np.abs(x - one) ** np.float32(p)).sum(-1) for one in (y, z)
    )
    worse = theirs.sum(-1) < ours.sum(-1)  # false where weights are so large that theirs is no number
    out: Bytes = np.where(worse[:, None], plain.reshape(packed.shape), packed).reshape(-1)
    return out
