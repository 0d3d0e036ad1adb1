"""Scales and offsets that make the squared error of a group small: a search over clips, then least squares.

Every function takes and gives arrays as grids/api.py lays them out. a: importance of each weight, None: all alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.convert.grids.api import Grid, Settled, round_to, widen
from edgewise.kernels.api import Floats

Fit = tuple[Settled, Floats]  # scales and offsets as stored, and codes under them
CLIPS = tuple(np.linspace(1.0, 0.8, 9, dtype=np.float32).tolist())
FEW_BITS_CLIPS = tuple(np.linspace(1.0, 0.4, 13, dtype=np.float32).tolist())  # up to 8 levels: clip deeper


def clips_of(grid: Grid) -> Sequence[float]:
    return FEW_BITS_CLIPS if grid.high - grid.low < 8 else CLIPS


def error_of(x: Floats, y: Floats, a: Floats | None) -> Floats:
    """Weighted squared error of each group, (blocks, groups)."""
    e = x - y
    e *= e
    if a is not None:
        e *= a
    out: Floats = e.sum(-1)
    return out


def extremes(grid: Grid, x: Floats) -> list[tuple[Floats, Floats]]:
    """(scale, offset) that just reach the outermost weights; without an offset, once for each end of the codes."""
    if grid.offset == "none":
        at = np.abs(x).argmax(-1)[..., None]
        extreme = np.take_along_axis(x, at, -1)[..., 0]
        zero = np.zeros_like(extreme)
        ends = [end for end in (grid.low, grid.high) if end]
        return [((extreme / np.float32(end)).astype(np.float32), zero) for end in dict.fromkeys(ends)]
    low, high = x.min(-1), x.max(-1)
    if grid.offset == "below":
        low = np.minimum(low, 0)
        high = np.maximum(high, low)
    return [(((high - low) / np.float32(grid.high - grid.low)).astype(np.float32), low)]


def least_squares(grid: Grid, x: Floats, q: Floats, a: Floats | None) -> tuple[Floats, Floats]:
    """The scale and offset under which given codes come nearest to the weights."""
    aq = q if a is None else a * q
    qq, qx = (aq * q).sum(-1), (aq * x).sum(-1)
    alone = np.divide(qx, qq, out=np.zeros_like(qx), where=qq > 0)
    if grid.offset == "none":
        return alone, np.zeros_like(alone)
    total = np.full(qq.shape, np.float32(x.shape[-1])) if a is None else np.broadcast_to(a, x.shape).sum(-1)
    sq, sx = aq.sum(-1), (x if a is None else a * x).sum(-1)
    spread = total * qq - sq * sq
    good = spread > 1e-6 * total * qq
    scale = np.divide(total * qx - sq * sx, spread, out=np.zeros_like(qq), where=good)
    offset = np.divide(sx - scale * sq, total, out=np.zeros_like(qq), where=total > 0)
    if grid.offset == "below":
        above = offset > 0
        scale, offset = np.where(above, alone, scale), np.where(above, 0, offset)
    return scale.astype(np.float32), offset.astype(np.float32)


def search(grid: Grid, x: Floats, a: Floats | None, rounds: int = 3) -> tuple[Floats, Floats]:
    """Scale and offset of every group, before they are rounded to what the format stores."""
    best: list[Floats] = []
    starts = extremes(grid, x)
    for clip in clips_of(grid):
        for scale, offset in starts:
            middle = offset + scale * np.float32((grid.low + grid.high) / 2) if grid.offset != "none" else offset
            tried = scale * np.float32(clip), middle + (offset - middle) * np.float32(clip)
            if grid.offset == "below":
                tried = tried[0], np.minimum(tried[1], 0)
            best = _better(grid, x, a, best, *tried)
    for _ in range(rounds):
        codes = round_to(grid, x, best[0], best[1])
        best = _better(grid, x, a, best, *least_squares(grid, x, codes, a))
    return best[0], best[1]


def _better(grid: Grid, x: Floats, a: Floats | None, best: list[Floats], scale: Floats, offset: Floats) -> list[Floats]:
    """Group by group, the better of what was found so far (scale, offset, error) and one more try."""
    y = round_to(grid, x, scale, offset)
    y *= scale[..., None]
    y += offset[..., None]
    error = error_of(x, y, a)
    if not best:
        return [scale, offset, error]
    better = error < best[2]
    return [np.where(better, new, old) for new, old in zip((scale, offset, error), best, strict=True)]


def settle(grid: Grid, x: Floats, scale: Floats, offset: Floats, a: Floats | None) -> Fit:
    """Stored scales and offsets, and codes. Where scales are small integers, each group also tries their neighbours,
    and the block's own scales are then fitted once to the codes that came out."""
    best = _rounded(grid, x, grid.settle(scale, offset), a)
    if grid.block == grid.group:
        return best[:2]
    again = grid.settle(*least_squares(grid, x, best[1], a))
    other = _rounded(grid, x, again, a)
    settled, codes = pick(other[2].sum(-1) < best[2].sum(-1), other[:2], best[:2])
    return settled, codes


def _rounded(grid: Grid, x: Floats, settled: Settled, a: Floats | None) -> tuple[Settled, Floats, Floats]:
    """Codes under stored scales or their neighbours, group by group whichever leaves less: and the errors left."""
    codes = round_to(grid, x, settled.scale, settled.offset)
    error = error_of(x, widen(codes, settled), a)
    best = settled
    for near in grid.nearby(settled):
        tried = round_to(grid, x, near.scale, near.offset)
        left = error_of(x, widen(tried, near), a)
        better = left < error
        best, codes = pick(better, (near, tried), (best, codes))
        error = np.where(better, left, error)
    return best, codes, error


def pick(first: npt.NDArray[np.bool_], one: Fit, other: Fit) -> Fit:
    """The one or the other: by blocks where `first` is (blocks,), by groups where it is (blocks, groups)."""

    def choose(a: Any, b: Any) -> Any:
        if a.ndim < first.ndim:  # of the whole block, and the same in both
            return a
        return np.where(first.reshape(*first.shape, *[1] * (a.ndim - first.ndim)), a, b)

    s, t = one[0], other[0]
    fields = {name: choose(s.fields[name], t.fields[name]) for name in s.fields}
    return Settled(choose(s.scale, t.scale), choose(s.offset, t.offset), fields), choose(one[1], other[1])
