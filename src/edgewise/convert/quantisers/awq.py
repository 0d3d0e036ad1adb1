"""AWQ: columns that meet large inputs are scaled up before rounding, and what comes before them is scaled down.

Paper:  Lin et al., AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration, 2023,
        arXiv:2306.00978
Approximate: the expected squared output error on the calibration text is at most that of round to nearest.
Needs:  a calibration text: the inputs' mean size and square, (columns,) each a matrix
Cost:   `steps` plain roundings of a sample of the rows, then the clip search
Status: trial
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgewise.base import BadInput
from edgewise.convert.grids import grid_of
from edgewise.convert.grids.nearest import nearest
from edgewise.convert.quantisers.api import Statistics, Uses, finite
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes

SAMPLE_WEIGHTS = 1 << 22  # of each matrix, rounded for every exponent tried


class AwqQuantiser:
    """Scales are mean|x| ** alpha, alpha the best of `steps` + 1 between 0 and 1, around 1 in the geometric middle."""

    uses: ClassVar[Uses] = "columns"
    must: ClassVar[bool] = True

    def __init__(self, steps: int = 20) -> None:
        if steps < 1:
            raise BadInput(f"awq: steps must be at least 1 but is {steps}.")
        self.steps = steps

    def __repr__(self) -> str:
        return f"AwqQuantiser(steps={self.steps})"

    def balance(self, weights: Sequence[Floats], formats: Sequence[str], seen: Statistics) -> Floats | None:
        found = [(w, fmt) for w, fmt in zip(weights, formats, strict=True) if grid_of(fmt) is not None]
        if not found:
            return None
        size = np.maximum(seen.size, seen.size.max() * np.float32(1e-4))
        if not size.max() > 0:
            return None
        best, scales = np.inf, None
        for alpha in np.linspace(0, 1, self.steps + 1, dtype=np.float32):
            tried = size**alpha
            tried /= np.sqrt(tried.max() * tried.min())
            loss = sum(_loss(_sample(w), fmt, tried, seen) for w, fmt in found)
            if loss < best:
                best, scales = loss, tried if alpha > 0 else None
        return scales

    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes:
        finite(name, rows)
        grid = grid_of(fmt)
        if grid is None:
            return formats.quantize(fmt, rows)
        return nearest(grid, rows, None if seen is None else seen.square)


def _sample(w: Floats) -> Floats:
    """Evenly spaced rows, so that a large matrix costs no more than SAMPLE_WEIGHTS."""
    return w[:: max(1, w.size // SAMPLE_WEIGHTS)]


def _loss(w: Floats, fmt: str, scales: Floats, seen: Statistics) -> float:
    """Expected squared error of w x when w * scales is what is rounded, columns taken as independent."""
    scaled = np.ascontiguousarray(w * scales)
    error = (scaled - formats.dequantize(fmt, formats.quantize(fmt, scaled), w.size).reshape(w.shape)) / scales
    return float(((error * error) @ seen.square).sum(dtype=np.float64)) / len(w)
