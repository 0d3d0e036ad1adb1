"""config.json from the metadata of a GGUF file, in Hugging Face's older dialect, which every reader knows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import Unsupported
from edgewise.models import read_spec
from edgewise.models.api import ModelSpec
from edgewise.models.ropes import RopeSettings
from edgewise.models.specs import FULL, SLIDING
from edgewise.weights.api import Header

# general.architecture (with what tells its children apart) → model_type; the class transformers loads
_TYPES: Mapping[str, str] = {"gemma3": "gemma3_text", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"}
_CLASSES: Mapping[str, str] = {
    "llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "gemma2": "Gemma2", "gemma3_text": "Gemma3", "phi3": "Phi3", "olmo2": "Olmo2", "smollm3": "SmolLM3",
    "qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe", "olmoe": "Olmoe",
}  # fmt: skip
# The stretches that Llama 3.1 to 3.3 were published with; GGUF keeps only their outcome.
_LLAMA3_STRETCHES = (8.0, 32.0, 16.0, 4.0, 2.0)


def model_type(header: Header) -> str:
    name = header.architecture
    if name == "llama" and header.config.get("llama.expert_count"):
        return "mixtral"
    if name == "llama" and header.config.get("llama.attention.sliding_window"):
        return "mistral"
    return _TYPES.get(name, name)


def hf_config(
    header: Header, spec: ModelSpec, *, biased: bool, factors: Mapping[str, np.ndarray[Any, Any]], dtype: str
) -> dict[str, Any]:
    """biased: the attention has biases. factors: the rope tensors of the file by canonical name. dtype: "F32", …"""
    kind = model_type(header)
    extra = spec.extra
    keys = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    ids = {name: header.config.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys}
    config: dict[str, Any] = {
        "architectures": [f"{_CLASSES.get(kind, kind.title())}ForCausalLM"],
        "model_type": kind,
        "hidden_size": spec.dim,
        "intermediate_size": int(header.config.get(f"{header.architecture}.feed_forward_length", spec.ffn_dim)),
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab,
        "max_position_embeddings": extra["ropes"][FULL].trained,
        "rms_norm_eps": spec.eps,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
        **{f"{name}_token_id": None if value is None else int(value) for name, value in ids.items()},
        **_activation(kind, spec),
        **_attention(kind, spec, biased),
        **_experts(kind, spec),
        **_rope(spec, factors),
    }
    back = replace(read_spec(Header("hf", kind, config, (), Path(), {}, header.name)), architecture="")
    for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab", "context", "eps", "windows",
                 "experts", "experts_per_token"):  # fmt: skip
        if getattr(back, name) != getattr(spec, name):
            raise Unsupported(f"config.json cannot say that this model's '{name}' is {getattr(spec, name)}.")
    for name in sorted({*extra, *back.extra} - {"ropes"}):
        if back.extra.get(name) != extra.get(name):
            raise Unsupported(f"config.json cannot say that this model's '{name}' is {extra.get(name)}.")
    return config


def _activation(kind: str, spec: ModelSpec) -> dict[str, Any]:
    name = {"gelu_tanh": "gelu_pytorch_tanh"}.get(spec.extra["act"], spec.extra["act"])
    return {"hidden_activation": name} if kind.startswith("gemma") else {"hidden_act": name}


def _attention(kind: str, spec: ModelSpec, biased: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    windows = [w for w in spec.windows if w is not None]
    if kind.startswith("gemma"):
        found["query_pre_attn_scalar"] = round(spec.extra["attn_scale"] ** -2)
        found["sliding_window"] = windows[0] if windows else None
        found["attn_logit_softcapping"] = spec.extra.get("attn_softcap")
        found["final_logit_softcapping"] = spec.extra.get("logit_softcap")
        found["layer_types"] = ["full_attention" if w is None else "sliding_attention" for w in spec.windows]
    elif kind in ("mistral", "mixtral", "phi3"):
        found["sliding_window"] = windows[0] if windows else None
    elif not kind.startswith("qwen2"):  # those have biases by definition
        found["attention_bias"] = biased
    if "rotates" in spec.extra:
        found["no_rope_layers"] = [int(flag) for flag in spec.extra["rotates"]]
    return found


def _experts(kind: str, spec: ModelSpec) -> dict[str, Any]:
    if not spec.experts:
        return {}
    found: dict[str, Any] = {
        "num_local_experts" if kind == "mixtral" else "num_experts": spec.experts,
        "num_experts_per_tok": spec.experts_per_token,
    }
    if kind.startswith("qwen"):
        found |= {"moe_intermediate_size": spec.ffn_dim, "decoder_sparse_step": 1, "mlp_only_layers": []}
    else:
        found["intermediate_size"] = spec.ffn_dim
    if "shared_dim" in spec.extra:
        found["shared_expert_intermediate_size"] = spec.extra["shared_dim"]
    if "renormalise" in spec.extra:
        found["norm_topk_prob"] = spec.extra["renormalise"]
    return found


def _rope(spec: ModelSpec, factors: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    full: RopeSettings = spec.extra["ropes"][FULL]
    found: dict[str, Any] = {"rope_theta": full.theta}
    if full.columns != spec.head_dim:
        found["partial_rotary_factor"] = full.columns / spec.head_dim
    if SLIDING in spec.extra["ropes"]:
        found["rope_local_base_freq"] = spec.extra["ropes"][SLIDING].theta
    if "rope_freqs" in factors:
        found["rope_scaling"] = _llama3(full, factors["rope_freqs"])
    elif "rope_long" in factors:
        found["original_max_position_embeddings"] = full.original
        found["rope_scaling"] = {
            "type": "longrope", "rope_type": "longrope", "attention_factor": full.number("attention_factor", 1.0),
            "long_factor": factors["rope_long"].tolist(), "short_factor": factors["rope_short"].tolist(),
        }  # fmt: skip
    elif full.kind in ("linear", "yarn"):
        keys = ("factor", "beta_fast", "beta_slow", "attention_factor")
        found["rope_scaling"] = {"rope_type": full.kind, **{k: full.params[k] for k in keys if k in full.params}}
        if full.kind == "yarn":
            found["rope_scaling"]["original_max_position_embeddings"] = full.original
    return found


def _llama3(full: RopeSettings, stored: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The settings whose outcome is what the file stores; found by trying the published ones."""
    plain = full.rope(full.trained).inv_freq
    for stretch in _LLAMA3_STRETCHES:
        given = {
            "rope_type": "llama3", "factor": stretch, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }  # fmt: skip
        if np.array_equal(full.with_params({**full.params, **given}).llama3(plain), stored):
            return given
    raise Unsupported(
        "The file stores divisors of its rope frequencies (rope_freqs.weight) that none of Llama's published settings "
        "give, and config.json has no room for the divisors themselves. Convert to GGUF instead."
    )
