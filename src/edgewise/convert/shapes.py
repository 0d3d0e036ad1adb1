"""Real shapes to fabricate, as their config.json has them. pre: how the family's tokenizer cuts words.

Sources: the models' published config.json files; stories-15m, stories-110m: llama2.c's table of models, with a longer
context.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewise.base import Unsupported
from edgewise.base.catalog import nearest


@dataclass(frozen=True)
class Shape:
    config: Mapping[str, Any]
    pre: str


_LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip

SHAPES: Mapping[str, Shape] = {
    "llama-3.2-1b": Shape(
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True, "rope_theta": 500000.0,
            "rope_scaling": _LLAMA3_ROPE, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072,
            "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        },
        "llama-bpe",
    ),
    "qwen2.5-0.5b": Shape(
        {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True, "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "hidden_act": "silu",
            "use_sliding_window": False, "sliding_window": None,
        },
        "qwen2",
    ),
    "olmoe-1b-7b": Shape(
        {
            "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 2048,
            "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16,
            "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False,
            "vocab_size": 50304, "tie_word_embeddings": False, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096, "hidden_act": "silu", "attention_bias": False, "clip_qkv": None,
        },
        "olmo",
    ),
    "stories-110m": Shape(
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64,
            "intermediate_size": 2048, "vocab_size": 32000, "tie_word_embeddings": True, "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "hidden_act": "silu",
        },
        "llama-bpe",
    ),
    "stories-15m": Shape(
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 288,
            "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 48,
            "intermediate_size": 768, "vocab_size": 32000, "tie_word_embeddings": True, "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "hidden_act": "silu",
        },
        "llama-bpe",
    ),
}  # fmt: skip


def find_shape(name: str) -> Shape:
    """The shape of that name. Raises Unsupported naming the nearest."""
    shape = SHAPES.get(name.lower())
    if shape is None:
        raise Unsupported(f"There is no shape '{name}'.{nearest(name.lower(), sorted(SHAPES))} Or give --config FILE.")
    return shape
