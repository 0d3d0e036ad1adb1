"""What a GGUF file says about a model, from Hugging Face settings. The reading direction is models/configs.py.

What GGUF has no field for is found by reading the metadata back and comparing: a file that would describe another model
is never written.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import Unsupported
from edgewise.convert.mixes import Mix
from edgewise.models import read_spec
from edgewise.models.api import ModelSpec
from edgewise.models.ropes import RopeSettings
from edgewise.models.specs import FULL, SLIDING
from edgewise.weights.api import Header

# Hugging Face model_type → general.architecture, where they differ
ARCHITECTURES: Mapping[str, str] = {
    "mistral": "llama",
    "mixtral": "llama",
    "gemma3_text": "gemma3",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
QUANTIZATION_VERSION = 2


def architecture_of(spec: ModelSpec) -> str:
    return ARCHITECTURES.get(spec.architecture, spec.architecture)


def gguf_metadata(spec: ModelSpec, name: str, mix: Mix | None) -> dict[str, Any]:
    """Every key but the tokenizer's. mix: None when tensors keep their formats."""
    arch = architecture_of(spec)
    own: dict[str, Any] = {
        "context_length": _trained(spec),
        "embedding_length": spec.dim,
        "block_count": spec.layers,
        "feed_forward_length": spec.ffn_dim,
        "vocab_size": spec.vocab,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "attention.layer_norm_rms_epsilon": float(spec.eps),
        **_rope(spec),
        **_experts(spec),
    }
    windows = {w for w in spec.windows if w is not None}
    if len(windows) > 1:
        raise Unsupported(f"The layers have windows of {sorted(windows)} tokens; GGUF has room for one size.")
    if windows:
        own["attention.sliding_window"] = windows.pop()
    for key, field in (("attn_logit_softcapping", "attn_softcap"), ("final_logit_softcapping", "logit_softcap")):
        if spec.extra.get(field):
            own[key] = float(spec.extra[field])
    general: dict[str, Any] = {"general.architecture": arch, "general.type": "model", "general.name": name}
    if mix is not None:
        general["general.file_type"] = mix.file_type
    general["general.quantization_version"] = QUANTIZATION_VERSION
    return {**general, **{f"{arch}.{key}": value for key, value in own.items()}}


def settled(spec: ModelSpec, metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata, completed by what reading it back shows to be missing. Raises Unsupported where nothing helps."""
    arch = metadata["general.architecture"]
    back = _read_back(metadata)
    if "attn_scale" in spec.extra and back.extra.get("attn_scale") != spec.extra["attn_scale"]:
        metadata = {**metadata, f"{arch}.attention.scale": float(spec.extra["attn_scale"])}
    period = _window_period(spec)
    if back.windows != spec.windows and period:
        metadata = {**metadata, f"{arch}.attention.sliding_window_pattern": period}
    back = _read_back(metadata)
    for field in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab", "context", "eps", "windows",
                  "experts", "experts_per_token"):  # fmt: skip
        _same(field, getattr(spec, field), getattr(back, field))
    for field in sorted({*spec.extra, *back.extra} - {"ropes"}):
        _same(field, spec.extra.get(field), back.extra.get(field))
    return metadata


def _read_back(metadata: Mapping[str, Any]) -> ModelSpec:
    as_stored = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in metadata.items()}
    header = Header("gguf", metadata["general.architecture"], as_stored, (), Path(), {}, metadata["general.name"])
    return replace(read_spec(header), architecture="")


def _same(field: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise Unsupported(f"GGUF cannot say that this model's '{field}' is {ours}: it would be read as {theirs}.")


def _trained(spec: ModelSpec) -> int:
    ropes: Mapping[str, RopeSettings] = spec.extra["ropes"]
    return next((rope.trained for rope in ropes.values()), spec.context)


def _window_period(spec: ModelSpec) -> int:
    """Every how many layers one is without a window, 0 when there is no such rhythm."""
    full = [i + 1 for i, window in enumerate(spec.windows) if window is None]
    if not full or full[0] == 1:
        return 0
    return full[0] if full == list(range(full[0], spec.layers + 1, full[0])) else 0


def _experts(spec: ModelSpec) -> dict[str, Any]:
    if not spec.experts:
        return {}
    found: dict[str, Any] = {
        "expert_count": spec.experts,
        "expert_used_count": spec.experts_per_token,
        "expert_feed_forward_length": spec.ffn_dim,
    }
    if "shared_dim" in spec.extra:
        found["expert_shared_feed_forward_length"] = spec.extra["shared_dim"]
    if "renormalise" in spec.extra:
        found["expert_weights_norm"] = spec.extra["renormalise"]
    return found


def _rope(spec: ModelSpec) -> dict[str, Any]:
    ropes: Mapping[str, RopeSettings] = spec.extra["ropes"]
    full = ropes.get(FULL)
    if full is None:
        return {}
    found: dict[str, Any] = {"rope.dimension_count": full.columns, "rope.freq_base": float(full.theta)}
    if SLIDING in ropes and ropes[SLIDING] != full:
        found["rope.freq_base_swa"] = float(ropes[SLIDING].theta)
    if full.kind == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": full.number("factor")}
    elif full.kind == "yarn":
        found |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": full.number("factor", full.trained / full.original),
            "rope.scaling.original_context_length": full.original,
        }
        for key, ours in (("beta_fast", "beta_fast"), ("beta_slow", "beta_slow"), ("attention_factor", "attn_factor")):
            if full.params.get(key) is not None:
                found[f"rope.scaling.yarn_{ours}"] = full.number(key)
    elif full.kind == "longrope":
        found |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": full.original,
            "rope.scaling.attn_factor": float(full.rope(full.trained).factor),
        }
    return found


def rope_tensors(spec: ModelSpec) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The divisors of rope frequencies that GGUF keeps as tensors."""
    full: RopeSettings | None = spec.extra["ropes"].get(FULL)
    if full is not None and full.kind == "longrope":
        return {
            "rope_factors_long.weight": full.factors("long_factor"),
            "rope_factors_short.weight": full.factors("short_factor"),
        }
    if full is not None and full.kind == "llama3":
        kept = ("rope_theta", "partial_rotary_factor")
        plain = full.with_params({key: full.params[key] for key in kept if key in full.params})
        return {"rope_freqs.weight": full.llama3(plain.rope(full.trained).inv_freq)}
    return {}
