"""Every neuron, always: the dense feed-forward part, bit for bit.

Paper:  none
Exact.
Needs:  nothing
Cost:   all neurons are read that are not here
Status: kept, the null member
"""

from pathlib import Path

import numpy as np

from edgewise.kernels.api import Array, Device, Ints
from edgewise.models.neurons.api import Picked
from edgewise.weights.api import Source
from edgewise.weights.neurons import LaidNeurons


class AllNeurons:
    reads_gates = True

    def __init__(self) -> None:
        self._ids: dict[int, Ints] = {}

    def open(self, device: Device, laid: LaidNeurons, act: str, source: Source, folder: Path) -> None:
        self._ids[laid.layer] = np.arange(laid.count, dtype=np.int32)

    def pick(self, device: Device, layer: int, x: Array) -> Picked:
        return Picked(self._ids[layer])
