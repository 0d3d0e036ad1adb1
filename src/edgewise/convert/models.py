"""A model about to be written: its settings, and every tensor by its stored name, readable a few rows at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.convert.float8 import stored_tensors
from edgewise.convert.gguf_metadata import rope_tensors
from edgewise.convert.pairing import pair
from edgewise.convert.recording import Recorder
from edgewise.convert.rows import Rows, constant, row_count, values
from edgewise.models import MODELS
from edgewise.models.api import ModelSpec
from edgewise.models.loading import examine
from edgewise.models.names import Names
from edgewise.weights.api import Checkpoint, Header, Source

# Tensors that a checkpoint may carry and no model reads: derived numbers, or the head repeating the embedding.
_NEEDLESS = ("rotary_emb.inv_freq", "lm_head.weight")
_ROPES = {"rope_freqs": "rope_freqs.weight", "rope_long": "rope_factors_long.weight",
          "rope_short": "rope_factors_short.weight"}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """recorder: what the model wants of `tensors`, which are in the header's dialect."""

    header: Header
    spec: ModelSpec
    recorder: Recorder
    tensors: Mapping[str, Rows]

    @property
    def unused(self) -> Sequence[str]:
        """Stored tensors that the model does not read (a vision tower, say) and that a conversion leaves out."""
        ropes = _ROPES.values() if self.header.dialect == "gguf" else ()
        read = {*self.recorder.stored, *ropes}
        return [name for name in self.tensors if name not in read and not name.endswith(_NEEDLESS)]


def describe(checkpoint: Checkpoint, source: Source) -> Described:
    """Opens nothing new: settings and tensors of a checkpoint, checked against each other."""
    member, spec, names = examine(checkpoint)
    recorder = Recorder(names, lambda name: names.find(name) is not None, stacked=False)
    member(spec, recorder)
    tensors = stored_tensors(checkpoint, source)
    return Described(checkpoint.header(), spec, recorder, tensors)


def gguf_recorder(model: Described) -> Recorder:
    """What the model wants of a GGUF file."""
    if model.header.dialect == "gguf":
        return model.recorder
    member = MODELS.load(model.header.architecture)
    target = Recorder(Names("gguf", (), member.gguf_names), model.recorder.has, stacked=True)
    member(model.spec, target)
    return target


def as_gguf(model: Described) -> dict[str, Rows]:
    """The tensors of a Hugging Face model as a GGUF file stores them, rope divisors first."""
    target = gguf_recorder(model)
    ropes = {name: constant(array) for name, array in rope_tensors(model.spec).items()}
    return {**ropes, **pair(model.recorder, target, model.tensors)}


def hf_recorder(model: Described, kind: str) -> Recorder:
    """What the model wants of a Hugging Face directory of model_type `kind`."""
    member = MODELS.load(kind)
    target = Recorder(Names("hf", (), member.hf_names), model.recorder.has, stacked=False)
    member(model.spec, target)
    return target


def rope_factors(model: Described) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The rope divisors stored in a GGUF file, by canonical name."""
    held = {name: model.tensors[stored] for name, stored in _ROPES.items() if stored in model.tensors}
    return {name: values(rows, 0, row_count(rows)).reshape(-1) for name, rows in held.items()}
