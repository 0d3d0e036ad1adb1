"""Round to nearest: each group on its own. The K formats search their scales, the others on demand or when calibrated.

Paper:  none; clip search and importance as in llama.cpp's imatrix and Li et al., 2023, arXiv:2311.00502
Approximate: the error of a weight is at most about half a step of its block.
Needs:  nothing; a calibration text, if there is one, weighs each column's error by its inputs' mean square
Cost:   2 ns a weight and core for the plain formats, 40 to 80 for the K formats; 60 to 220 with the search here
Status: kept
"""

from typing import ClassVar

from edgewise.convert.grids import grid_of
from edgewise.convert.grids.nearest import nearest
from edgewise.convert.quantisers.api import Statistics, Uses, finite
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


class RtnQuantiser:
    """clip: search each group's range between 0.8 (0.4 at two and three bits) and 1 of its extremes. None: when
    calibrated."""

    uses: ClassVar[Uses] = "columns"
    must: ClassVar[bool] = False

    def __init__(self, clip: bool | None = None) -> None:
        self.clip = clip

    def __repr__(self) -> str:
        return f"RtnQuantiser(clip={self.clip})"

    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes:
        finite(name, rows)
        grid = grid_of(fmt)
        if grid is None or not (seen is not None if self.clip is None else self.clip):
            return formats.quantize(fmt, rows)
        return nearest(grid, rows, None if seen is None else seen.square)
