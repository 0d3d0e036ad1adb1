"""The same function with weights on no grid: what a quantised model stores is spread by random scales that cancel out.

A model that was stored as INT8 in groups of 32 says nothing about narrowing to INT8 in groups of 32: its weights
already lie on that grid. Scales of neighbouring matrices (convert/folding.py) cancel but for rounding in float32, and
leave no two weights of a group on one grid.
"""

from pathlib import Path

import numpy as np

from edgewise.base import Unsupported
from edgewise.convert.folding import Fold, Folding
from edgewise.convert.mixes import find_mix
from edgewise.convert.models import describe, gguf_recorder
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.writing import Order, Written, save_gguf
from edgewise.kernels.api import Floats
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

SPREAD = (0.8, 1.25)  # little enough that no column becomes an outlier


def spread_weights(model: Path, out: Path, *, seed: int = 0) -> Written:
    """Writes `model`, a GGUF file, as F32 GGUF. Embedding and head keep their numbers."""
    checkpoint = open_checkpoint(model)
    header = checkpoint.header()
    if header.dialect != "gguf":
        raise Unsupported(f"Weights are spread in GGUF files; convert {model} to GGUF first.")
    source = SOURCES.build("file", files=header.files)
    random = np.random.default_rng(seed)

    def scales(fold: Fold) -> Floats:
        columns = fold.matrices[0].shape[-1]
        return fold.tied(random.uniform(*SPREAD, columns).astype(np.float32))

    try:
        described = describe(checkpoint, source)
        tensors = Folding(gguf_recorder(described), described.spec, scales).tensors(described.tensors)
        order = Order(out, QUANTISERS.build("rtn"), find_mix("f32"), inputs=tuple(header.files))
        return save_gguf(dict(header.config) | {"general.file_type": 0}, tensors, order, described.spec.layers)
    finally:
        source.close()
