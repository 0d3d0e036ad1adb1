"""The twelve bytes in which two of the K formats keep eight 6-bit scales and eight 6-bit mins."""

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import Floats


def unpack(packed: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """(blocks, 12) → scales and mins, (blocks, 8) each."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
    low = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    return scale.astype(np.float32), low.astype(np.float32)
