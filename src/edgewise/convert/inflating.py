"""A trained model made larger without changing what it computes: real bytes for measurements, from small weights.

Every part of the residual stream, every head and every neuron is there several times over; what reads copies takes a
share of each. Shares are powers of two, so a share of a weight is exact: for the stream they sit in the norms, for
heads and neurons they are split between what writes a copy (v, up) and what reads it (o, down). No weight is zero, so
nothing can be skipped. Logits differ only by the order in which equal numbers are added up (docs/decisions/0104).
Idea: Chen et al. 2015, Net2Net, https://arxiv.org/abs/1511.05641
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Unsupported
from edgewise.convert.converting import copy_companions, gguf_of, stored_gguf
from edgewise.convert.models import describe
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantising import Narrowing
from edgewise.convert.rows import Rows, StoredRows, constant
from edgewise.convert.safetensors_writer import write_safetensors
from edgewise.convert.writing import Order, Watch, Written, save_gguf, save_safetensors
from edgewise.decode.drafting_weights import beside, companions, read_tensors, write_tensors
from edgewise.decode.drafting_weights import widened as widened_drafts
from edgewise.kernels import formats
from edgewise.models import read_spec
from edgewise.models.api import ModelSpec
from edgewise.models.neurons.predictor import FILE, read_heads
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint, Source
from edgewise.weights.sources import SOURCES

Bytes = npt.NDArray[np.uint8]
GIB = 1 << 30
ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")  # of GGUF; in others the width enters elsewhere too
MOST = 1 << 16  # copies of anything

# Block formats: bytes of a block, and where in it the float16 factors lie that all its weights are multiplied by.
_BLOCKS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "Q4_0": (18, (0,)), "Q4_1": (20, (0, 2)), "Q5_0": (22, (0,)), "Q5_1": (24, (0, 2)), "Q8_0": (34, (0,)),
    "Q2_K": (84, (80, 82)), "Q3_K": (110, (108,)), "Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,)),
}  # fmt: skip


def shifted(fmt: str, stored: Bytes, halvings: int) -> Bytes:
    """Stored weights times 2 ** -halvings, in the same format."""
    if not halvings:
        return stored
    factor = np.float32(2.0**-halvings)
    if fmt in _BLOCKS:
        size, places = _BLOCKS[fmt]
        blocks = stored.reshape(-1, size).copy()
        for place in places:
            scale = blocks[:, place : place + 2].copy().view(np.float16)
            blocks[:, place : place + 2] = (scale * factor).astype(np.float16).view(np.uint8)
        return blocks.reshape(-1)
    if fmt in ("F32", "F16", "BF16"):
        width = formats.nbytes(fmt, 1)
        return formats.quantize(fmt, formats.dequantize(fmt, stored, stored.size // width) * factor)
    raise Unsupported(f"Weights of {fmt} cannot be halved exactly. Convert the model first, for example with -q q8_0.")


def shares(copies: int) -> tuple[int, ...]:
    """Halvings for each of `copies` copies, so that the shares add up to one: 3 → 1, 2, 2."""
    low = copies.bit_length() - 1
    fine = 2 * (copies - (1 << low))
    return (low,) * (copies - fine) + (low + 1,) * fine


@dataclass(frozen=True)
class TiledRows:
    """Copies of a tensor beside and below itself. rows, columns: halvings of each copy, one number a copy."""

    inner: Rows
    rows: Sequence[int]
    columns: Sequence[int]

    @property
    def format(self) -> str:
        return self.inner.format

    @property
    def shape(self) -> tuple[int, ...]:
        *outer, columns = self.inner.shape
        if not outer:
            return (columns * len(self.columns),)
        return (*outer[:-1], outer[-1] * len(self.rows), columns * len(self.columns))

    def raw(self, first: int, count: int) -> Bytes:
        own = self.inner.shape[-2] if len(self.inner.shape) > 1 else 1
        row_bytes = formats.nbytes(self.format, self.inner.shape[-1])
        out = []
        while count:
            copy, at = divmod(first, own)
            run = min(count, own - at)
            expert, copy = divmod(copy, len(self.rows))
            block = self.inner.raw(expert * own + at, run)
            wide = {n: shifted(self.format, block, n).reshape(run, row_bytes)
                    for n in {self.rows[copy] + column for column in self.columns}}  # fmt: skip
            out.append(np.concatenate([wide[self.rows[copy] + column] for column in self.columns], 1).reshape(-1))
            first, count = first + run, count - run
        return np.concatenate(out)


@dataclass(frozen=True)
class Factors:
    """How often everything is there: parts of the residual stream, heads (both a power of two), neurons."""

    stream: int
    heads: int
    neurons: int


_LAYER = re.compile(r"blk\.\d+\.(?P<part>[a-z_0-9]+)\.(?P<kind>weight|bias)$")


def tiled(name: str, rows: Rows, by: Factors) -> Rows:
    """One tensor of a GGUF file, widened. Raises Unsupported for a tensor whose part is not known."""
    found = _LAYER.match(name)
    part = found["part"] if found else name.removesuffix(".weight")
    stream = (by.stream.bit_length() - 1,) * by.stream  # the share of every copy of the stream
    whole, none = (0,) * by.stream, (0,)
    heads, neurons = shares(by.heads), shares(by.neurons)
    head_in, head_out = tuple(n // 2 for n in heads), tuple(n - n // 2 for n in heads)
    up, down = tuple(n // 2 for n in neurons), tuple(n - n // 2 for n in neurons)
    plain_heads, plain_neurons = (0,) * by.heads, (0,) * by.neurons
    bias = found is not None and found["kind"] == "bias"
    if part in ("attn_norm", "ffn_norm", "output_norm"):
        return TiledRows(rows, none, stream)
    if part in ("attn_q_norm", "attn_k_norm") or part.startswith("rope_"):
        return rows
    sides: dict[str, tuple[Sequence[int], Sequence[int]]] = {
        "token_embd": (none, whole), "output": (none, whole), "attn_q": (plain_heads, whole),
        "attn_k": (plain_heads, whole), "attn_v": (head_in, whole), "attn_output": (whole, head_out),
        "ffn_gate_inp": (none, whole),
    }  # fmt: skip
    for end in ("", "_exps"):
        sides[f"ffn_gate{end}"] = plain_neurons, whole
        sides[f"ffn_up{end}"] = up, whole
        sides[f"ffn_down{end}"] = whole, down
    if part not in sides:
        raise Unsupported(f"How to widen the tensor '{name}' is not known.")
    below, beside = sides[part]
    if not bias:
        return TiledRows(rows, below, beside)
    if len(below) > 1 and len(set(below)) > 1:
        raise Unsupported(f"The bias '{name}' cannot be widened {len(below)} times; take a power of two.")
    return TiledRows(rows, none, below)


def inflate(model: Path, out: Path, *, gib: float, force: bool = False, watch: Watch | None = None) -> Written:
    """Writes `model` as a file or folder of about `gib` GiB that gives the same logits, but for the last bits.

    A folder comes from a Llama's folder only, keeps its settings (GGUF cannot say that a gate is a relu), and has its
    predictor widened too. Raises BadInput when the model is already larger, Unsupported for architectures and formats
    that cannot be widened.
    """
    if not 0 < gib < 1 << 20:
        raise BadInput(f"--gib must be between 0 and {1 << 20} but is {gib}.")
    checkpoint = open_checkpoint(model)
    header = checkpoint.header()
    if out.suffix != ".gguf":
        return _inflate_folder(checkpoint, out, int(gib * GIB), force, watch)
    source: Source = SOURCES.build("file", files=header.files)
    try:
        if header.dialect == "gguf":
            metadata, tensors = stored_gguf(checkpoint, source)
        else:
            metadata, tensors = gguf_of(describe(checkpoint, source), None)
        arch = metadata["general.architecture"]
        if arch not in ARCHITECTURES:
            raise Unsupported(f"Models of the kind '{arch}' cannot be widened yet. Known: {', '.join(ARCHITECTURES)}.")
        spec = read_spec(header)
        if "output.weight" not in tensors:  # the embedding is read as it is, the head through a norm with the shares
            tensors["output.weight"] = tensors["token_embd.weight"]
        by = factors(tensors, int(gib * GIB))
        wide = {name: tiled(name, rows, by) for name, rows in tensors.items()}
        folder = (header.folder,) if header.dialect == "hf" else ()
        order = Order(out, QUANTISERS.build("rtn"), None, force, watch, (*header.files, *folder))
        written = save_gguf(widened(metadata, spec, by), wide, order, spec.layers)
    finally:
        source.close()
    for what, file in companions(header.files[0] if header.dialect == "gguf" else header.folder):
        about, weights = widened_drafts(*read_tensors(file), by.stream)
        write_tensors(beside(open_checkpoint(out).header(), what), weights, about)
        written.notices.append(f"{file.name}, which drafts for it, was widened too.")
    written.notices.append(
        f"{by.stream} times the width, {by.heads} times the heads, {by.neurons} times the neurons of {header.name}."
    )
    return written


_HF_NAMES = (
    ("model.embed_tokens.", "token_embd."), ("model.norm.", "output_norm."), ("lm_head.", "output."),
    ("model.layers.", "blk."), ("self_attn.o_proj", "attn_output"), ("self_attn.", "attn_"), ("mlp.", "ffn_"),
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"), ("_proj.", "."),
)  # fmt: skip


def _inflate_folder(checkpoint: Checkpoint, out: Path, target: int, force: bool, watch: Watch | None) -> Written:
    header = checkpoint.header()
    if header.dialect != "hf" or header.architecture != "llama":
        raise Unsupported("A folder can be made from a Llama's folder only. Name the output something.gguf.")
    spec, source = read_spec(header), SOURCES.build("file", files=header.files)
    names, tensors = {}, {}
    try:
        for name in checkpoint.names():
            alike = name
            for theirs, ours in _HF_NAMES:
                alike = alike.replace(theirs, ours)
            names[name], tensors[alike] = alike, StoredRows(checkpoint.info(name), source)
        if "output.weight" not in tensors:
            names["lm_head.weight"], tensors["output.weight"] = "output.weight", tensors["token_embd.weight"]
        by = factors(tensors, target)
        config = {
            **header.config, "hidden_size": spec.dim * by.stream, "intermediate_size": spec.ffn_dim * by.neurons,
            "num_attention_heads": spec.heads * by.heads, "num_key_value_heads": spec.kv_heads * by.heads,
            "head_dim": spec.head_dim, "tie_word_embeddings": False,
        }  # fmt: skip

        def others(folder: Path) -> None:
            copy_companions(header, folder)
            if (header.folder / FILE).is_file():
                widen_predictor(header.folder / FILE, folder, by)

        order = Order(out, QUANTISERS.build("rtn"), None, force, watch, (*header.files, header.folder))
        wide = {name: tiled(alike, tensors[alike], by) for name, alike in names.items()}
        written = save_safetensors(config, wide, order, others)
    finally:
        source.close()
    written.notices.append(
        f"{by.stream} times the width, {by.heads} times the heads, {by.neurons} times the neurons of {header.name}."
    )
    return written


def widen_predictor(path: Path, folder: Path, by: Factors) -> None:
    """Copies of a neuron fire together. The norm's weights hold the stream's shares, so a copy of it brings
    that share of every input, and the inner matrix is repeated as it is."""
    new: dict[str, Rows] = {}
    for name, values in read_heads(path).items():
        kind = name.rpartition(".")[2]
        copies = (1, by.stream) if kind == "in" else (by.neurons,) if kind == "bias" else (by.neurons, 1)
        wide = np.tile(values, copies)
        new[name] = constant(np.ascontiguousarray(wide, np.float32))
    made = Narrowing(QUANTISERS.build("rtn")).tensors(new, dict.fromkeys(new, "F32"))
    with tempfile.TemporaryDirectory(dir=folder) as apart:
        (written,) = write_safetensors(Path(apart), made)
        written.rename(folder / FILE)


def widened(metadata: Mapping[str, Any], spec: ModelSpec, by: Factors) -> dict[str, Any]:
    """The metadata of the larger model. A head stays as it is, so its size and scale are said outright."""
    arch = metadata["general.architecture"]
    own = {
        "embedding_length": spec.dim * by.stream,
        "feed_forward_length": spec.ffn_dim * by.neurons,
        "attention.head_count": spec.heads * by.heads,
        "attention.head_count_kv": spec.kv_heads * by.heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
    }
    if spec.experts:
        own["expert_feed_forward_length"] = spec.ffn_dim * by.neurons
    rope = f"{arch}.rope.dimension_count"
    name = {"general.name": f"{metadata.get('general.name', arch)}-inflated"}
    return {**metadata, **name, rope: metadata.get(rope, spec.head_dim), **{f"{arch}.{k}": v for k, v in own.items()}}


def factors(tensors: Mapping[str, Rows], target: int) -> Factors:
    """All three alike as far as a power of two goes, then neurons until `target` bytes are reached."""

    def size(by: Factors) -> int:
        made = (tiled(name, rows, by) for name, rows in tensors.items())
        return sum(formats.nbytes(rows.format, prod(rows.shape)) for rows in made)

    least = size(Factors(1, 1, 1))
    if target < least:
        raise BadInput(f"The model has {least / GIB:.3f} GiB already; --gib must be at least that.")
    copies = 1
    while copies < MOST and size(Factors(2 * copies, 2 * copies, 2 * copies)) <= target:
        copies *= 2
    one = size(Factors(copies, copies, copies))
    step = size(Factors(copies, copies, copies + 1)) - one
    return Factors(copies, copies, copies + max(0, round((target - one) / step)))
