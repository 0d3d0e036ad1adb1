"""FP8 in Hugging Face directories, both ways: codes times scales as plain numbers, and linear weights in blocks.

Written is what transformers calls fine-grained FP8: codes beside `weight_scale_inv`, one scale for 128 x 128 weights.
Embedding, head, routers and vectors stay what they are.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from edgewise.convert.gguf_writer import NewTensor
from edgewise.convert.rows import Bytes, ComputedRows, Rows, StoredRows, row_count, values
from edgewise.convert.safetensors_writer import DTYPES
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.models.float8 import Scales
from edgewise.weights.api import Checkpoint, Source, TensorInfo

_LINEAR = re.compile(r"(^|\.)layers\.\d+\..*\.weight$")
_ROUTERS = (".mlp.gate.weight", ".shared_expert_gate.weight", ".block_sparse_moe.gate.weight")
_STEP = 8 * formats.SPAN  # rows at a time: whole blocks


def stored_tensors(checkpoint: Checkpoint, source: Source) -> dict[str, Rows]:
    """Every tensor by its stored name; FP8 weights as the numbers they stand for, without the scales beside them."""
    infos = {name: checkpoint.info(name) for name in checkpoint.names()}
    narrow = [info for info in infos.values() if info.format in formats.FLOAT8]
    found: dict[str, Rows] = {name: StoredRows(info, source) for name, info in infos.items()}
    if not narrow:
        return found
    scales = Scales(checkpoint)
    for info in narrow:
        found[info.name] = _widened(info, scales, source)
        for name in scales.beside(info.name):
            found.pop(name, None)
    return found


def _widened(info: TensorInfo, scales: Scales, source: Source) -> Rows:
    codes, scale = StoredRows(info, source), scales.find(info)
    if scale is None:
        return ComputedRows(info.shape, lambda first, count: values(codes, first, count), "BF16")  # which holds them
    stored = formats.dequantize(scale.format, source.read(scale.extent, 0, scale.extent.nbytes), prod(scale.shape))

    def make(first: int, count: int) -> Floats:
        spans = scales.spread(info, scale, stored, first, count)
        return values(codes, first, count) * np.repeat(spans, formats.SPAN, axis=1)[:, : info.shape[-1]]

    return ComputedRows(info.shape, make)


def float8_tensors(tensors: Mapping[str, Rows], fmt: str) -> list[NewTensor]:
    """What a folder of this FP8 holds. Weights are read twice, some rows at a time."""
    new: list[NewTensor] = []
    for name, rows in tensors.items():
        if len(rows.shape) == 2 and _LINEAR.search(name) and not name.endswith(_ROUTERS):
            blocks = tuple(-(-n // formats.SPAN) for n in rows.shape)
            new += [
                NewTensor(name, rows.shape, fmt, _pieces(rows, lambda w: formats.in_blocks(fmt, w)[0])),
                NewTensor(f"{name}_scale_inv", blocks, "F32", _pieces(rows, lambda w: formats.in_blocks(fmt, w)[1])),
            ]
        else:
            kept = rows.format if rows.format in DTYPES else "F32" if len(rows.shape) < 2 else "BF16"
            new.append(NewTensor(name, rows.shape, kept, _pieces(rows, partial(formats.quantize, kept))))
    return new


def _pieces(rows: Rows, narrow: Callable[[Floats], Any]) -> Callable[[], Iterator[Bytes]]:
    def make() -> Iterator[Bytes]:
        total = row_count(rows)
        for first in range(0, total, _STEP):
            made = narrow(values(rows, first, min(_STEP, total - first)))
            yield np.ascontiguousarray(made).reshape(-1).view(np.uint8)

    return make


def float8_settings(tensors: Mapping[str, Rows], fmt: str) -> dict[str, object] | None:
    """quantization_config, which readers of such folders go by."""
    aside = [name.removesuffix(".weight") for name in tensors if name.endswith((*_ROUTERS, "lm_head.weight"))]
    return {
        "quant_method": "fp8", "fmt": fmt.partition("_")[2].lower(), "activation_scheme": "dynamic",
        "weight_block_size": [formats.SPAN, formats.SPAN], "modules_to_not_convert": aside,
    }  # fmt: skip
