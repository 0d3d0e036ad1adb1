"""Those that a small trained network expects to fire: `edgewise train predictor` writes it beside the model.

Paper:  Alizadeh et al., LLM in a flash, arXiv 2312.11514, section 3.1 (low rank, one for each layer)
Approximate: a neuron that fires unexpectedly is missing: `train predictor` prints recall and precision.
Needs:  predictor.safetensors in the model's folder
Cost:   rank x (width + neurons) weights a layer in memory
Status: kept
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.api import Array, Device, Weight
from edgewise.kernels.parsing import parse_safetensors
from edgewise.models.neurons.api import Picked
from edgewise.weights import bundle
from edgewise.weights.api import Source
from edgewise.weights.neurons import LaidNeurons

FILE = "predictor.safetensors"


class PredictedNeurons:
    """margin: added to every score; a neuron is taken when the sum is above 0. Above 0 reads more and misses less."""

    reads_gates = True

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = float(margin)
        self._heads: dict[int, tuple[Weight, Weight, Array]] = {}

    def open(self, device: Device, laid: LaidNeurons, act: str, source: Source, folder: Path) -> None:
        path = bundle.member(folder, FILE)
        if not path.exists():
            raise BadInput(f"{folder}: there is no {FILE}. Make it by `edgewise train predictor`, or use 'gate'.")
        found = read_heads(path)
        layer, names = laid.layer, ("in", "out", "bias")
        if any(f"layers.{layer}.{name}" not in found for name in names):
            raise BadInput(f"{path}: nothing is said of layer {layer}. Train the predictor again, for this model.")
        inner, outer, bias = (found[f"layers.{layer}.{name}"] for name in names)
        if inner.shape[1] != laid.dim or outer.shape != (laid.count, inner.shape[0]) or bias.shape != (laid.count,):
            raise BadInput(f"{path}: layer {layer} is for {len(bias)} neurons of {inner.shape[1]} inputs, not "
                           f"{laid.count} of {laid.dim}. Train the predictor again, for this model.")  # fmt: skip
        self._heads[layer] = (
            _upload(device, inner), _upload(device, outer), device.upload(np.asarray(bias + self.margin, np.float32))
        )  # fmt: skip

    def pick(self, device: Device, layer: int, x: Array) -> Picked:
        inner, outer, bias = self._heads[layer]
        expected = device.download(device.linear(device.linear(x, inner), outer, bias)) > 0
        ids = np.flatnonzero(expected.any(axis=0)).astype(np.int32)
        keep = None if len(expected) == 1 else np.ascontiguousarray(expected[:, ids]).view(np.uint8)
        return Picked(ids, keep)


def _upload(device: Device, matrix: Any) -> Weight:
    """As BF16: what it decides does not need more."""
    stored = formats.quantize("BF16", np.ascontiguousarray(matrix, np.float32)).reshape(-1).view(np.uint8)
    return device.load(matrix.shape, "BF16", lambda offset, nbytes: stored[offset : offset + nbytes])


def read_heads(path: Path) -> dict[str, Any]:
    """Every tensor of the file as float32."""
    fd, size = bundle.open_file(path)
    with bundle.closing(fd):
        found = {}
        for tensor in parse_safetensors(fd, size, str(path)).tensors:
            data = np.frombuffer(os.pread(fd, tensor.nbytes, tensor.offset), np.uint8)
            count = int(np.prod(tensor.shape))
            found[tensor.name] = formats.dequantize(tensor.format, data, count).reshape(tensor.shape)
        return found
