"""The contract of what picks neurons."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import Array, Device, Ints
from edgewise.weights.api import Source
from edgewise.weights.neurons import LaidNeurons


@dataclass(frozen=True)
class Picked:
    """ids: neurons, ascending, that any row needs. keep (rows, len(ids)): which row needs which; None: all of them, or
    those left out give zero. gates (rows, all neurons): the gate's products, when they are known already."""

    ids: Ints
    keep: npt.NDArray[np.uint8] | None = None
    gates: Array | None = None


class Neurons(Protocol):
    """Picks by the row alone, never by what is here, what other rows need or what came before (law 1)."""

    reads_gates: bool  # False: gate rows are not wanted from the store

    # once, before any pick; may keep weights on the device. Raises BadInput, Unsupported
    def open(self, device: Device, laid: LaidNeurons, act: str, source: Source, folder: Path) -> None: ...

    def pick(self, device: Device, layer: int, x: Array) -> Picked: ...  # x (rows, dim), normalised
