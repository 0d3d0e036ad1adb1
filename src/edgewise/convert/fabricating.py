"""Models out of nothing: random weights in a real shape, so that speed and memory can be measured without a download.

Weights are N(0, 0.02) rounded to BF16, norms are 1. They are cut from one pool of 2^24 numbers at a place that depends
on the seed and the tensor's name only, so the same model comes out whatever it is written as, and as fast as a copy.
"""

import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.convert.converting import target_of, write_as_gguf
from edgewise.convert.mixes import find_mix
from edgewise.convert.models import Described
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.recording import Recorder
from edgewise.convert.rows import Bytes, Rows, constant
from edgewise.convert.shapes import find_shape
from edgewise.convert.vocabulary import SMALLEST, special_ids, write_tokenizer
from edgewise.convert.writing import Order, Watch, Written, save_safetensors
from edgewise.kernels import formats
from edgewise.models.loading import member_of, read_spec
from edgewise.models.names import Names
from edgewise.weights import bundle
from edgewise.weights.api import Header

POOL = 16_777_213  # a prime: rows of one tensor never repeat in step with it
DEVIATION = np.float32(0.02)


@dataclass(frozen=True)
class RandomRows:
    """A tensor cut from the pool (POOL,) of BF16 bits, beginning at `start` and wrapping round."""

    shape: tuple[int, ...]
    pool: npt.NDArray[np.uint16]
    start: int
    format: str = "BF16"

    def raw(self, first: int, count: int) -> Bytes:
        columns = self.shape[-1]
        out = np.empty(count * columns, np.uint16)
        at, done = (self.start + first * columns) % len(self.pool), 0
        while done < len(out):
            step = min(len(out) - done, len(self.pool) - at)
            out[done : done + step] = self.pool[at : at + step]
            done, at = done + step, 0
        return out.view(np.uint8)


def random_pool(seed: int) -> npt.NDArray[np.uint16]:
    numbers = np.random.default_rng(seed).standard_normal(POOL, np.float32) * DEVIATION
    return formats.quantize("BF16", numbers).view(np.uint16)


def fabricate(
    out: Path,
    *,
    shape: str | None = None,
    config: Path | None = None,
    to: str | None = None,
    quant: str | None = None,
    layers: int | None = None,
    seed: int = 0,
    pure: bool = False,
    force: bool = False,
    watch: Watch | None = None,
) -> Written:
    """Writes a random model of a named shape, or of the shape a Hugging Face config.json describes."""
    if (shape is None) == (config is None):
        raise BadInput("Name a shape or give --config FILE: one of the two.")
    settings, pre, name = _settings(shape, config)
    if layers is not None:
        settings, name = _cut(settings, layers), f"{name}-{layers}l"
    mix = find_mix(quant or "bf16")
    if to is None and (quant or "bf16").lower() not in ("bf16", "f16", "f32"):
        to = "gguf"
    target = target_of(out, to)
    order = Order(out, QUANTISERS.build("rtn"), mix, force, watch, (config,) if config else (), pure)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as scratch:
        ids = special_ids(settings["vocab_size"])
        model = imagine(Header("hf", str(settings["model_type"]), settings, (), Path(scratch), ids, name), seed)
        context = model.spec.context

        def companions(folder: Path) -> None:
            write_tokenizer(folder, model.spec.vocab, pre, context)

        if target == "safetensors":
            dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(mix.usual)
            return save_safetensors({**settings, "torch_dtype": dtype}, model.tensors, order, companions)
        companions(Path(scratch))
        return write_as_gguf(model, order)


def imagine(header: Header, seed: int) -> Described:
    """The model a config.json describes, with every tensor its architecture asks for, in random numbers."""
    member, spec = member_of(header), read_spec(header)
    recorder = Recorder(Names("hf", (), member.hf_names), _has(header.config), stacked=False)
    member(spec, recorder)
    pool = random_pool(seed)
    tensors: dict[str, Rows] = {}
    plus = {place: w.plus for w in recorder.wanted for place, _ in w.places}
    for name, shape in recorder.stored.items():
        if len(shape) == 1 and not name.endswith(".bias"):
            tensors[name] = constant(np.full(shape, 1 - plus[name], np.float32), "BF16")
        else:
            start = int(np.random.default_rng([seed, zlib.crc32(name.encode())]).integers(POOL))
            tensors[name] = RandomRows(shape, pool, start)
    return Described(header, spec, recorder, tensors)


def _has(config: Mapping[str, Any]) -> Any:
    """Which optional weights a model of these settings has, by canonical name."""

    def has(name: str) -> bool:
        part = name.rsplit(".", 2)[-2:]
        if part[-1] == "qkv":
            return True
        if part[-1] != "bias":
            return False
        if part[0] in ("q", "k", "v"):
            return bool(config.get("attention_bias", config.get("qkv_bias", config["model_type"] == "qwen2_moe")))
        return bool(config.get({"o": "attention_bias", "gate": "mlp_bias", "up": "mlp_bias"}.get(part[0], ""), False))

    return has


def _settings(shape: str | None, config: Path | None) -> tuple[dict[str, Any], str, str]:
    if shape is not None:
        found = find_shape(shape)
        settings, pre, name = dict(found.config), found.pre, shape.lower()
    else:
        assert config is not None
        settings, pre, name = dict(bundle.read_json(config)), "llama-bpe", config.resolve().parent.name
        inner = settings.get("text_config")
        if isinstance(inner, Mapping):
            settings = {**inner}
    if not isinstance(settings.get("model_type"), str):
        raise BadInput(f"{config}: model_type is missing, so nothing says what model this is.")
    vocab = settings.get("vocab_size")
    if isinstance(vocab, bool) or not isinstance(vocab, int) or not SMALLEST <= vocab < 1 << 24:
        raise BadInput(f"{config}: vocab_size must be between {SMALLEST} and 2^24 but is {vocab!r}.")
    return {**settings, **special_ids(vocab)}, pre, name


def _cut(settings: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The same shape with another number of layers; lists with one entry a layer are cut or repeated to fit."""
    if layers < 1:
        raise BadInput(f"--layers must be at least 1 but is {layers}.")
    old = settings.get("num_hidden_layers")
    fitted = {
        key: (value * layers)[:layers] if isinstance(value, list) and value and len(value) == old else value
        for key, value in settings.items()
    }
    return {**fitted, "num_hidden_layers": layers}
