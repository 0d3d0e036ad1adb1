"""One view of a model's settings for both dialects: Hugging Face key names, with GGUF metadata translated.

Every reader refuses what cannot be (missing, not a number, zero, absurd) with a sentence that names the key as the file
writes it and the value it holds.
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.weights.api import Header

LARGEST = 1 << 24  # no count in a model's settings is larger; anything above is a broken file
MOST_LAYERS = 1 << 12

# Hugging Face name → GGUF name below "<architecture>."
GGUF_KEYS: Mapping[str, str] = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "value_dim": "attention.value_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "vocab_size": "vocab_size",
    "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "clip_qkv": "attention.clamp_kqv",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "norm_topk_prob": "expert_weights_norm",
    "rope_theta": "rope.freq_base",
    "rope_local_base_freq": "rope.freq_base_swa",
}

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_tanh": "gelu_tanh",
}  # fmt: skip


LISTS = (list, tuple)


def _plain(value: Any) -> Any:
    """A value that can be compared and counted, whatever the file holds."""
    return value if isinstance(value, int | float | str) else repr(value)


def single(value: float) -> float:
    """Rounded to float32, which is what GGUF stores, so that both dialects give the same number."""
    return float(np.float32(value))


class Config:
    """Settings of one checkpoint by Hugging Face name. `defaults` stand in for keys the file leaves out."""

    def __init__(self, header: Header, defaults: Mapping[str, Any] | None = None) -> None:
        self.dialect = header.dialect
        self.architecture = header.architecture
        self.where = header.files[0].name if header.dialect == "gguf" and header.files else "config.json"
        self._defaults = defaults or {}
        self._raw = header.config
        self._values = self._from_gguf(header) if header.dialect == "gguf" else self._flat(header.config)

    @staticmethod
    def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
        """Multimodal checkpoints keep the language model's settings in `text_config`."""
        inner = config.get("text_config")
        return {**config, **inner} if isinstance(inner, Mapping) else dict(config)

    def _from_gguf(self, header: Header) -> dict[str, Any]:
        found = {}
        for name, key in GGUF_KEYS.items():
            value = header.config.get(f"{header.architecture}.{key}")
            if value is not None:
                found[name] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        tokens = header.config.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Sized) and not isinstance(tokens, str | bytes):
            found.setdefault("vocab_size", len(tokens))
        pattern = found.get("sliding_window_pattern")
        if isinstance(pattern, LISTS):  # one flag per layer instead of a period
            found["layer_types"] = ["sliding_attention" if flag else "full_attention" for flag in pattern]
            del found["sliding_window_pattern"]
        for name, value in list(found.items()):
            if isinstance(value, LISTS) and name != "layer_types":  # one per layer, which must agree
                each = list(dict.fromkeys(map(_plain, value)))
                if len(each) != 1:
                    raise Unsupported(f"'{self.label(name)}' in {self.where} differs between layers: {each[:8]}.")
                found[name] = each[0]
        if found.get("sliding_window") == 0:  # 0 means none
            del found["sliding_window"]
        return found

    def label(self, key: str) -> str:
        """The key as the file writes it."""
        if self.dialect == "gguf" and key in GGUF_KEYS:
            return f"{self.architecture}.{GGUF_KEYS[key]}"
        return key

    def raw(self, key: str) -> Any:
        """A GGUF metadata value below the architecture's name, or None."""
        value = self._raw.get(f"{self.architecture}.{key}") if self.dialect == "gguf" else None
        return value.tolist() if isinstance(value, np.generic | np.ndarray) else value

    def has(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        value = self._values.get(key)
        return self._defaults.get(key, default) if value is None else value

    def count(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """A whole number from `least` to `most`."""
        value = self.get(key, default)
        if value is None:
            raise BadInput(f"{self.where} has no '{self.label(key)}', which every {self.architecture} model needs.")
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadInput(f"'{self.label(key)}' in {self.where} must be a whole number but is {value!r}.")
        if not least <= value <= most:
            raise BadInput(f"'{self.label(key)}' in {self.where} must be between {least} and {most} but is {value}.")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite, positive number rounded to float32, or None when the file has none."""
        value = self.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(f"'{self.label(key)}' in {self.where} must be a number but is {value!r}.")
        if not 0 < value < 1e30:
            raise BadInput(f"'{self.label(key)}' in {self.where} must be positive and finite but is {value}.")
        return single(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise BadInput(f"'{self.label(key)}' in {self.where} must be true or false but is {value!r}.")
        return value

    def activation(self, *keys: str, default: str, more: Sequence[str] = ()) -> str:
        """The device's name for the activation, or one of `more`; Unsupported by name when there is none."""
        for key in keys:
            name = self.get(key)
            if name is None:
                continue
            if isinstance(name, str) and name in more:
                return name
            if not isinstance(name, str) or name not in ACTIVATIONS:
                raise Unsupported(f"'{key}' in {self.where} is {name!r}. Known: {', '.join(sorted(ACTIVATIONS))}.")
            return ACTIVATIONS[name]
        return default

    def layer_types(self, layers: int, default: Sequence[str]) -> tuple[str, ...]:
        """One of full_attention and sliding_attention for each layer."""
        types = self.get("layer_types", default)
        if not isinstance(types, LISTS) or len(types) != layers:
            size = len(types) if isinstance(types, LISTS) else repr(types)
            raise BadInput(f"'layer_types' in {self.where} has {size} entries but there are {layers} layers.")
        for kind in types:
            if kind not in ("full_attention", "sliding_attention"):
                raise Unsupported(f"'layer_types' in {self.where} has {kind!r}, which is neither full nor sliding.")
        return tuple(types)

    def windows(self, types: Sequence[str], window: int | None) -> tuple[int | None, ...]:
        if "sliding_attention" in types and window is None:
            raise BadInput(f"{self.where} has layers of sliding attention but no '{self.label('sliding_window')}'.")
        return tuple(window if kind == "sliding_attention" else None for kind in types)
