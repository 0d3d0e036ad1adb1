"""Gemma 3 (text): norms around both halves and on heads; five windowed layers to one full, each kind with its own rope.

Paper:  Gemma Team 2025, https://arxiv.org/abs/2503.19786
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgewise.base import Unsupported
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config, single
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.ropes import RopeSettings
from edgewise.models.specs import FULL, SLIDING, decoder_spec, gemma_scale, with_extra

NORMS = ("attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm")


class Gemma3(Decoder):
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "attn_post_norm": "layers.{i}.post_attention_layernorm",
        "ffn_norm": "layers.{i}.pre_feedforward_layernorm",
        "ffn_post_norm": "layers.{i}.post_feedforward_layernorm",
    }
    # The published files lean on these: config.json of the larger ones leaves them out.
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": 262208, "max_position_embeddings": 131072, "query_pre_attn_scalar": 256,
    }  # fmt: skip

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        if config.get("use_bidirectional_attention"):
            raise Unsupported(f"'use_bidirectional_attention' in {config.where} is set; this reads left to right only.")
        spec = decoder_spec(config, context, theta=1e6, tied=True)
        every = config.get("sliding_window_pattern", 6)
        every = every if isinstance(every, int) and every > 0 else 6
        types = config.layer_types(spec.layers, [SLIDING if (i + 1) % every else FULL for i in range(spec.layers)])
        window = config.count("sliding_window", None if config.dialect == "gguf" else 4096)
        ropes = dict(spec.extra["ropes"])
        if SLIDING not in ropes:  # the older dialect and GGUF: a base of its own, never scaled
            local = {"rope_theta": config.number("rope_local_base_freq", 10000.0)}
            ropes[SLIDING] = RopeSettings(local, spec.head_dim, 10000.0, ropes[FULL].trained, config.where)
        return with_extra(
            replace(spec, windows=config.windows(types, window), context=ropes[FULL].reach(context)),
            ropes=ropes,
            layer_types=types,
            act=config.activation("hidden_activation", default="gelu_tanh"),
            attn_scale=gemma_scale(config, spec, large=62),
            embed_scale=single(math.sqrt(spec.dim)),
        )

    def norm_plus(self, load: Loader) -> float:
        return 1.0 if load.dialect == "hf" else 0.0  # the model uses 1 + w; GGUF files store that sum

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][spec.extra["layer_types"][layer]], spec.context)
        plus = self.norm_plus(load)
        attention = Attention(load, spec, layer, rope, qk_norm="head", norm_plus=plus)
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer), norms=NORMS, norm_plus=plus)
