"""`edgewise show`: what a model is, read from its headers alone; no weight is loaded."""

import json
from typing import Annotated, Any

import typer

from edgewise.base import EdgewiseError
from edgewise.kernels.devices import DEVICES
from edgewise.kernels.formats import FLOAT8
from edgewise.kv.types import cache_type, token_bytes
from edgewise.plan.float8 import choose_float8
from edgewise.serve.hub import locate
from edgewise.serve.measure import formats, step_bytes
from edgewise.serve.options import CacheType, Context, Json, human
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint


def command(
    model: Annotated[str, typer.Argument(help="a folder, a GGUF file, or user/repo from the cache")],
    context: Context = None,
    kv_cache_dtype: CacheType = None,
    as_json: Json = False,
) -> None:
    """Shows architecture, sizes, formats, tokenizer and an estimate of the memory a run takes."""
    facts = describe(str(locate(model)), context, kv_cache_dtype or "auto")
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        if name == "formats":
            value = ", ".join(f"{key}: {row['tensors']} tensors, {human(row['bytes'])}" for key, row in value.items())
        elif isinstance(value, dict):
            value = ", ".join(f"{key.removesuffix('_bytes')} {human(item)}" for key, item in value.items())
        elif name.endswith("bytes") and value is not None:
            value = human(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, int):
            value = f"{value:,}"
        print(f"{name.replace('_', ' '):<20} {'unknown' if value is None else value}")


def describe(path: str, context: int | None, kv_cache_dtype: str) -> dict[str, Any]:
    """Facts about a model. Raises BadInput or Unsupported where the files make no sense."""
    checkpoint = open_checkpoint(path)
    header = checkpoint.header()
    spec = _spec(checkpoint)
    parameters = sum(_count(checkpoint.info(name).shape) for name in checkpoint.names())
    stored = sum(nbytes for _, nbytes in formats(checkpoint).values())
    facts: dict[str, Any] = {
        "name": header.name,
        "dialect": header.dialect,
        "architecture": header.architecture,
        "parameters": parameters,
        "bytes": stored,
        "bits_per_weight": round(8 * stored / parameters, 2) if parameters else None,
        "formats": {key: {"tensors": n, "bytes": size} for key, (n, size) in sorted(formats(checkpoint).items())},
    }
    if isinstance(spec, str):
        facts["runs"] = False
        facts["why_not"] = spec
    else:
        facts["runs"] = True
        for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab", "context", "tied"):
            facts[name] = getattr(spec, name)
        if spec.experts:
            facts |= {"experts": spec.experts, "experts_per_token": spec.experts_per_token}
        facts["read_per_token_bytes"] = step_bytes(checkpoint)
        cache = cache_type(kv_cache_dtype, (checkpoint.info(name).format for name in checkpoint.names()))
        facts["memory"] = _memory(spec, stored, context, cache)
    if any(name in FLOAT8 for name in facts["formats"]):
        facts["fp8"] = "computed as {} ({})".format(*choose_float8("auto", DEVICES.build("cpu")))
    kind, template = _tokenizer(checkpoint)
    facts |= {"tokenizer": kind, "chat_template": template}
    return facts


def _spec(checkpoint: Checkpoint) -> Any:
    """The model's shape, or the sentence why nothing here runs it."""
    from edgewise.models.loading import examine

    try:
        return examine(checkpoint)[1]
    except EdgewiseError as error:
        return str(error)


def _memory(spec: Any, stored: int, context: int | None, dtype: str) -> dict[str, int]:
    """Bytes a run takes: weights, keys and values of a full context, and the widest activations of a step."""
    tokens = context or spec.context
    kv = tokens * token_bytes(spec.layers, spec.kv_heads, spec.head_dim, dtype)
    activations = 4 * 512 * (4 * spec.dim + 3 * spec.ffn_dim) + 4 * spec.vocab
    return {
        "weights_bytes": stored,
        "kv_bytes": kv,
        "activations_bytes": activations,
        "total_bytes": stored + kv + activations,
    }


def _tokenizer(checkpoint: Checkpoint) -> tuple[str | None, bool]:
    """(kind, has a chat template); the kind is None when there is no tokenizer, a sentence when it cannot be read."""
    from edgewise.text import load_template, load_tokenizer

    header = checkpoint.header()
    try:
        tokenizer = load_tokenizer(header)
    except EdgewiseError as error:
        return str(error), False
    kind = "tokenizer.json" if header.dialect == "hf" else str(header.config.get("tokenizer.ggml.model"))
    try:
        return f"{kind}, {tokenizer.vocab} tokens", load_template(header) is not None
    except EdgewiseError:
        return f"{kind}, {tokenizer.vocab} tokens", False


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
