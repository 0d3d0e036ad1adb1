"""Those that fire: the gate matrix stays in memory and is computed whole; where it is above 0, up and down are read.

Paper:  Alizadeh et al., LLM in a flash, arXiv 2312.11514, predict who fires; Xue et al., PowerInfer-2,
        arXiv 2406.06282, read the gate first. A gate that stays is a predictor without errors, at a third of the
        memory.
Exact.  A neuron whose relu gate is not above 0 adds zero.
Needs:  a relu gate
Cost:   a third of the feed-forward part in memory
Status: kept, the default where the gate is a relu
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Array, Device, Weight
from edgewise.kernels.checksums import xxh64
from edgewise.models.neurons.api import Picked
from edgewise.weights.api import Source
from edgewise.weights.neurons import LaidNeurons


class FiringNeurons:
    reads_gates = False

    def __init__(self) -> None:
        self._gates: dict[int, Weight] = {}

    def open(self, device: Device, laid: LaidNeurons, act: str, source: Source, folder: Path) -> None:
        if act != "relu":
            raise Unsupported(f"neurons 'gate' needs a relu gate, but this model has {act}: all its neurons fire.")

        def read(offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
            first, count = offset // laid.row_bytes, nbytes // laid.row_bytes
            data = source.read(laid.extent, first * laid.step, count * laid.step)
            rows = np.frombuffer(data, np.uint8).reshape(count, laid.step)
            sums = [xxh64(row[: laid.row_bytes].data) for row in rows]
            if (np.array(sums, np.uint64) != laid.sums[first : first + count, 0]).any():
                raise BadInput(
                    f"layer {laid.layer}: neurons from {first} on do not have their checksums. The disk or the memory "
                    "is at fault; compare the file with its origin."
                )
            return np.ascontiguousarray(rows[:, : laid.row_bytes]).reshape(-1)

        self._gates[laid.layer] = device.load((laid.count, laid.dim), laid.format, read)

    def pick(self, device: Device, layer: int, x: Array) -> Picked:
        gates = device.linear(x, self._gates[layer])
        values = device.download(gates)
        fires = (values[0] > 0) if len(values) == 1 else (values > 0).any(axis=0)
        # A gate that is no number must reach the result.
        if np.isnan(values.sum()):
            fires |= np.isnan(values).any(axis=0)
        return Picked(np.flatnonzero(fires).astype(np.int32), gates=gates)
