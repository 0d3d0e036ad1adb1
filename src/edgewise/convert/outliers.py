"""The same function with outliers: a few channels made large, and what reads them made small by the same factor.

Trained models of billions of weights grow such channels by themselves (LLM.int8(), arXiv 2208.07339); small ones do
not, and a technique against outliers cannot be tested on a model that has none. The factor is a power of two, so every
product keeps its bits: in float32 the logits are the old ones, bit for bit.
"""

import re
from math import ceil, frexp
from pathlib import Path

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.convert.mixes import find_mix
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.rows import ComputedRows, Rows, StoredRows, values
from edgewise.convert.writing import Order, Written, save_gguf
from edgewise.kernels.api import Floats
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

# The norm that makes a layer's channels, and who reads them. Norm weights are never quantised, so that the outliers are
# in the activations alone, as they are in trained models.
MADE = (
    ("attn_norm.weight", ("attn_q.weight", "attn_k.weight", "attn_v.weight")),
    ("ffn_norm.weight", ("ffn_gate.weight", "ffn_up.weight")),
)


def _scaled(tensor: Rows, factors: Floats) -> Rows:
    """Every column times its factor."""
    return ComputedRows(tensor.shape, lambda first, count: values(tensor, first, count) * factors)


def inject_outliers(model: Path, out: Path, *, share: float = 0.002, factor: float = 64.0, seed: int = 0) -> Written:
    """Writes `model`, a dense GGUF file, as F32 GGUF with `share` of every layer's channels `factor` times larger.

    At least one channel behind each of a layer's two norms.
    """
    if not 0 < share < 1 or factor <= 0 or frexp(factor)[0] != 0.5:
        raise BadInput(f"share is between 0 and 1 and factor a power of two, not {share} and {factor}.")
    checkpoint = open_checkpoint(model)
    header = checkpoint.header()
    if header.dialect != "gguf":
        raise Unsupported(f"Outliers are injected into GGUF files; convert {model} to GGUF first.")
    names = set(checkpoint.names())
    layers = sorted({match[1] for name in names if (match := re.match(r"(blk\.\d+)\.", name))})
    factors: dict[str, Floats] = {}
    random = np.random.default_rng(seed)
    for layer in layers:
        for maker, readers in MADE:
            made, read = f"{layer}.{maker}", [f"{layer}.{reader}" for reader in readers]
            if not {made, *read} <= names:
                raise Unsupported(
                    f"{header.name} has no '{made}' read by {', '.join(read)}: outliers are injected into dense models."
                )
            width = checkpoint.info(made).shape[0]
            loud = np.ones(width, np.float32)
            loud[random.choice(width, ceil(share * width), replace=False)] = factor
            factors[made] = loud
            factors |= dict.fromkeys(read, np.float32(1) / loud)
    source = SOURCES.build("file", files=header.files)
    try:
        stored = {name: StoredRows(checkpoint.info(name), source) for name in checkpoint.names()}
        tensors: dict[str, Rows] = {
            name: _scaled(rows, factors[name]) if name in factors else rows for name, rows in stored.items()
        }
        order = Order(out, QUANTISERS.build("rtn"), find_mix("f32"), inputs=tuple(header.files))
        return save_gguf(dict(header.config) | {"general.file_type": 0}, tensors, order, len(layers))
    finally:
        source.close()
