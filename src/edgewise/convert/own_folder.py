"""A folder of safetensors from finished tensors laid out as GGUF's: how `--quant auto` writes our own formats."""

from dataclasses import replace

from edgewise.convert.converting import copy_companions
from edgewise.convert.hf_config import hf_config, model_type
from edgewise.convert.hf_tokenizer import write_hf_tokenizer
from edgewise.convert.models import Described, describe, hf_recorder, rope_factors
from edgewise.convert.pairing import pair
from edgewise.convert.recording import Recorder
from edgewise.convert.writing import Order, Written, save_safetensors
from edgewise.weights.api import Checkpoint
from edgewise.weights.sources import SOURCES


def folder_recorder(model: Described) -> Recorder:
    """What the model wants of the folder: of the one it came from, where it did."""
    return model.recorder if model.header.dialect == "hf" else hf_recorder(model, model_type(model.header))


def fused(source: Recorder, target: Recorder) -> list[set[str]]:
    """Tensors of the source that are rows of one tensor of the target (q, k and v, say), and so have one format."""
    found: dict[str, set[str]] = {}
    for ours, theirs in zip(source.wanted, target.wanted, strict=True):
        for stored, _ in theirs.places:
            found.setdefault(stored, set()).update(name for name, _ in ours.places)
    return [names for names in found.values() if len(names) > 1]


def save_folder(made: Checkpoint, model: Described, order: Order) -> Written:
    """made: the finished tensors, as a GGUF file of `model` would hold them. Their bytes are copied, row by row."""
    source = SOURCES.build("file", files=made.header().files)
    try:
        held, target, header = describe(made, source), folder_recorder(model), model.header
        if header.dialect == "hf":
            config = dict(header.config)
        else:
            biased = model.recorder.has("layers.0.q.bias")
            config = hf_config(header, model.spec, biased=biased, factors=rope_factors(model), dtype="F32")
        return save_safetensors(
            config, pair(held.recorder, target, held.tensors), replace(order, mix=None, watch=None),
            lambda folder: copy_companions(header, folder) if header.dialect == "hf"
            else write_hf_tokenizer(header, folder),
        )  # fmt: skip
    finally:
        source.close()
