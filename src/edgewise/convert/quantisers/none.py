"""No quantising: weights may change their format only where every number survives.

Paper:  none
Exact:  refuses what would lose a bit.
Needs:  nothing
Cost:   one decode of what was encoded
Status: kept
"""

from typing import ClassVar

import numpy as np

from edgewise.base import Incompatible
from edgewise.convert.quantisers.api import Statistics, Uses
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


class NoQuantiser:
    uses: ClassVar[Uses] = "nothing"
    must: ClassVar[bool] = False

    def __repr__(self) -> str:
        return "NoQuantiser()"

    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes:
        packed = formats.quantize(fmt, rows)
        if not np.array_equal(formats.dequantize(fmt, packed, rows.size).reshape(rows.shape), rows):
            raise Incompatible(
                f"Quantiser 'none' keeps every number, but {fmt} cannot hold those of '{name}'. "
                "Try quantiser 'rtn', or keep the formats that are stored."
            )
        return packed
