"""Half-quadratic quantisation: scales and offsets that leave a few large errors rather than many small ones; no data.

Paper:  Badri and Shaji, Half-Quadratic Quantization, 2023, https://mobiusml.github.io/hqq_blog
Approximate: the sum of |error| ** p over a block is at most that of round to nearest.
Needs:  nothing
Cost:   about 20 rounds of 10 passes over the weights, 0.5 us a weight and core
Status: trial
"""

from typing import ClassVar

import numpy as np

from edgewise.convert.grids import Grid, grid_of
from edgewise.convert.grids.api import blocks_of, inverse, round_to, widen
from edgewise.convert.grids.fitting import extremes, least_squares, settle
from edgewise.convert.grids.nearest import better_blocks, codes
from edgewise.convert.quantisers.api import Statistics, Uses, finite
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


class HqqQuantiser:
    """Alternates W_e = shrink(W - W_q), which takes the large errors out of the sum, and a fit of scale and offset to
    W - W_e. The paper fixes the scale and fits the offset; a format without an offset has its scale fitted instead,
    and with `scale` both are. Errors are measured in steps of the group, so that beta means the same in every layer.
    """

    uses: ClassVar[Uses] = "nothing"
    must: ClassVar[bool] = False

    def __init__(
        self, p: float = 0.7, beta: float = 10.0, kappa: float = 1.01, rounds: int = 20, scale: bool = True
    ) -> None:
        self.p = p
        self.beta = beta
        self.kappa = kappa
        self.rounds = rounds
        self.scale = scale

    def __repr__(self) -> str:
        return (
            f"HqqQuantiser(p={self.p}, beta={self.beta}, kappa={self.kappa}, rounds={self.rounds}, scale={self.scale})"
        )

    @np.errstate(over="ignore", invalid="ignore")  # squares of weights near float32's end
    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes:
        finite(name, rows)
        grid = grid_of(fmt)
        if grid is None:
            return formats.quantize(fmt, rows)
        x = blocks_of(grid, rows)
        settled, q = settle(grid, x, *self._fit(grid, x), None)
        return better_blocks(grid, x, grid.pack(codes(q), settled), widen(q, settled), None, self.p)

    def _fit(self, grid: Grid, x: Floats) -> tuple[Floats, Floats]:
        found: list[Floats] = []
        for scale, offset in extremes(grid, x):
            beta = self.beta
            for _ in range(self.rounds):
                q = round_to(grid, x, scale, offset)
                error: Floats = x - (scale[..., None] * q + offset[..., None])
                left = (np.abs(error) ** np.float32(self.p)).sum(-1)
                found = _better(found, [scale, offset, left])
                step: Floats = np.where(scale == 0, np.float32(1), np.abs(scale))[..., None]
                target = x - self._shrink(error / step, beta) * step
                if self.scale or grid.offset == "none":
                    scale, offset = least_squares(grid, target, q, None)
                else:
                    offset = (target - scale[..., None] * q).mean(-1)
                    offset = np.minimum(offset, 0) if grid.offset == "below" else offset
                beta *= self.kappa
        return found[0], found[1]

    def _shrink(self, error: Floats, beta: float) -> Floats:
        size = np.abs(error)
        pull = inverse(size) ** np.float32(1 - self.p) / np.float32(beta)
        shrunk: Floats = np.sign(error) * np.maximum(size - pull, 0)
        return shrunk


def _better(old: list[Floats], new: list[Floats]) -> list[Floats]:
    if not old:
        return new
    better = new[2] < old[2]
    return [np.where(better, n, o) for n, o in zip(new, old, strict=True)]
