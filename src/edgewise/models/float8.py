"""FP8 checkpoints: what `quantization_config` says, checked, and the scales that lie beside the weights.

Weights only: checkpoints that also ask for 8-bit activations or an 8-bit KV cache get more precise ones. A stored
number times its scale is the weight (`weight_scale` and, in spite of its name, `weight_scale_inv`).
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import FLOAT8, SPAN
from edgewise.models.configs import Config
from edgewise.models.ternary import is_packed_ternary
from edgewise.weights.api import Checkpoint, TensorInfo

BLOCK = (128, 128)
INT8 = "int8:group=32"  # what 8-bit floats may be narrowed to at load
_STRATEGIES = ("tensor", "channel", "block")
# Scales of activations and of keys and values, which stay unscaled floats here.
_ASIDE = ("input_scale", "input_scale_ub", "activation_scale", "output_scale", "k_scale", "v_scale")


def float8_block(config: Config) -> tuple[int, int] | None:
    """Rows and columns that share a scale where scales are blocks; None: the settings speak of no FP8 weights.

    Raises Unsupported naming the variant when the weights are packed in a way that is not read.
    """
    packed = config.get("quantization_config") if config.dialect == "hf" else None
    if packed is None or is_packed_ternary(packed, config.where):
        return None
    given: Mapping[str, Any] = packed if isinstance(packed, Mapping) else {"quant_method": packed}
    method = given.get("quant_method")
    if method == "edgewise":  # ours: the checkpoint has told the tensors' formats
        return None
    where = f"'quantization_config' in {config.where}"
    if method == "fp8":
        if given.get("fmt", "e4m3") not in ("e4m3", "e5m2"):
            raise Unsupported(f"{where} has the fmt {given['fmt']!r}. Known: e4m3, e5m2.")
        return _block(given.get("weight_block_size"), f"'weight_block_size' of {where}")
    if method == "fbgemm_fp8":
        return BLOCK
    if method == "modelopt" and _algorithm(given) == "FP8":
        return BLOCK
    if method == "compressed-tensors":
        return _compressed(given, where)
    raise Unsupported(
        f"{where} says the weights are packed by {str(method)[:40]!r}, which edgewise cannot read. "
        "Take the original weights, an FP8 version, or a GGUF file."
    )


def _algorithm(given: Mapping[str, Any]) -> Any:
    inner = given.get("quantization")
    return (inner if isinstance(inner, Mapping) else given).get("quant_algo")


def _compressed(given: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Of compressed-tensors only float-quantized: all groups 8-bit floats, a scale for a tensor, a row or a block."""
    if given.get("format") not in ("float-quantized", "naive-quantized"):
        raise Unsupported(
            f"{where} is compressed-tensors in the format {str(given.get('format'))[:40]!r}; only 'float-quantized' "
            "can be read. Take the original weights, an FP8 version, or a GGUF file."
        )
    groups = given.get("config_groups")
    block = BLOCK
    for name, group in (groups.items() if isinstance(groups, Mapping) else ()):
        weights = group.get("weights") if isinstance(group, Mapping) else None
        kind = weights if isinstance(weights, Mapping) else {}
        if (kind.get("type"), kind.get("num_bits"), kind.get("symmetric", True)) != ("float", 8, True):
            raise Unsupported(f"{where}: the weights of {str(name)[:40]!r} are not symmetric 8-bit floats.")
        if kind.get("strategy") not in _STRATEGIES:
            raise Unsupported(f"{where}: the strategy {kind.get('strategy')!r} is not one of {', '.join(_STRATEGIES)}.")
        if kind["strategy"] == "block":
            block = _block(kind.get("block_structure"), f"'block_structure' of {where}")
    return block


def _block(given: Any, label: str) -> tuple[int, int]:
    if given is None:
        return BLOCK
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(type(n) is int and n > 0 for n in given):
        raise BadInput(f"{label} must be two whole numbers but is {given!r}.")
    if given[1] % SPAN:
        raise Unsupported(f"{label} is {list(given)}; only multiples of {SPAN} columns can be computed with.")
    return given[0], given[1]


class Scales:
    """The scales of one checkpoint's FP8 weights. Where the settings speak of FP8, every such weight must have one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        block = float8_block(Config(checkpoint.header()))
        self._checkpoint = checkpoint
        self._stored = frozenset(checkpoint.names())
        self._block = block or BLOCK
        self._stated = block is not None

    def beside(self, name: str) -> list[str]:
        """Stored names that belong to an FP8 weight, its own scale among them."""
        module = name.removesuffix(".weight")
        parent = module.rpartition(".")[0]
        found = [self._name(name), *(f"{module}.{end}" for end in _ASIDE), f"{parent}.k_scale", f"{parent}.v_scale"]
        return [n for n in found if n in self._stored]

    def _name(self, name: str) -> str:
        names = [f"{name}_scale_inv", f"{name}_scale"]
        return next((n for n in names if n in self._stored), names[0])

    def find(self, info: TensorInfo) -> TensorInfo | None:
        """Where a weight's scale is stored, None when it is 1. Raises BadInput or Unsupported when it does not fit."""
        if info.format not in FLOAT8:
            return None
        name = self._name(info.name)
        if name not in self._stored:
            if self._stated:
                raise BadInput(f"Tensor '{info.name}' is FP8 but has no scale, '{name}'. Is the download complete?")
            return None
        scale = self._checkpoint.info(name)
        if scale.format not in ("F32", "BF16", "F16"):
            raise Unsupported(f"Tensor '{name}' is {scale.format}; a scale must be F32, BF16 or F16.")
        if prod(scale.shape) == 1:
            return scale
        rows, cols = info.shape[0], info.shape[-1]
        if len(info.shape) != 2:
            raise Unsupported(f"Tensor '{info.name}' has {len(info.shape)} dimensions; FP8 weights with several scales "
                              "must have two.")
        blocks = tuple(-(-n // b) for n, b in zip((rows, cols), self._block, strict=True))
        if scale.shape not in ((rows,), (rows, 1), blocks):
            raise BadInput(
                f"Tensor '{name}' has shape {scale.shape}, but the scale of a {info.shape} weight is one number, "
                f"one for each row, or {blocks}: one for each block of {self._block[0]} x {self._block[1]}."
            )
        return scale

    def spread(self, info: TensorInfo, scale: TensorInfo, values: Floats, first: int, rows: int) -> Floats:
        """(rows, spans) for stored rows [first, first + rows) of a weight, from its stored scale (flat)."""
        if not np.isfinite(values).all():
            raise BadInput(f"Tensor '{scale.name}' holds a scale that is not a finite number.")
        spans = -(-info.shape[-1] // SPAN)
        if values.size == 1:
            return np.full((rows, spans), values[0], np.float32)
        index = np.arange(first, first + rows)
        if values.size == info.shape[0] and scale.shape[0] == info.shape[0]:
            return np.repeat(values[index, None], spans, axis=1)
        each = values.reshape(scale.shape)[index // self._block[0]]
        return np.ascontiguousarray(each[:, np.arange(spans) * SPAN // self._block[1]])


def held_as(fmt: str, choice: str, shape: Sequence[int]) -> str | None:
    """The format to narrow a weight to at load, None: as stored. choice: "bf16" or "int8"."""
    return INT8 if choice == "int8" and fmt in FLOAT8 and shape[-1] % 32 == 0 else None
