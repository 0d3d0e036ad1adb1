"""Round to nearest: each block on its own, without looking at data; the K formats search their scales.

Paper:  none
Approximate: the error of a weight is at most about half a step of its block.
Needs:  nothing
Cost:   2 ns a weight and core for the plain formats, 40 to 80 for the K formats
Status: kept
"""

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


class RtnQuantiser:
    def __repr__(self) -> str:
        return "RtnQuantiser()"

    def quantise(self, name: str, rows: Floats, fmt: str) -> Bytes:
        # A sum is finite only when every weight is; overflow of a finite sum would need weights beyond any format.
        if not np.isfinite(rows.sum(dtype=np.float64)):
            raise BadInput(f"Tensor '{name}' holds a weight that is not finite, so it cannot be quantised.")
        return formats.quantize(fmt, rows)
