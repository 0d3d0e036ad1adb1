"""Gemma 2: norms around both halves of a layer, soft caps on scores and logits, a window in every other layer.

Paper:  Gemma Team 2024, https://arxiv.org/abs/2408.00118
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config, single
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, SLIDING, decoder_spec, gemma_scale, optional, with_extra

NORMS = ("attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm")


class Gemma2(Decoder):
    defaults: ClassVar[Mapping[str, Any]] = {"hidden_activation": "gelu_pytorch_tanh"}
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "attn_post_norm": "layers.{i}.post_attention_layernorm",
        "ffn_norm": "layers.{i}.pre_feedforward_layernorm",
        "ffn_post_norm": "layers.{i}.post_feedforward_layernorm",
    }

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context, tied=True)
        types = config.layer_types(spec.layers, [FULL if i % 2 else SLIDING for i in range(spec.layers)])
        spec = replace(spec, windows=config.windows(types, config.count("sliding_window", 4096)))
        return with_extra(
            spec,
            attn_softcap=optional(config, "attn_logit_softcapping", 50.0),
            logit_softcap=optional(config, "final_logit_softcapping", 30.0),
            act=config.activation("hidden_activation", default="gelu_tanh"),
            attn_scale=gemma_scale(config, spec, large=46),
            embed_scale=single(math.sqrt(spec.dim)),
        )

    def norm_plus(self, load: Loader) -> float:
        return 1.0 if load.dialect == "hf" else 0.0  # the model uses 1 + w; GGUF files store that sum

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope)
        ffn = DenseFfn(load, spec, layer)
        return Block(load, spec, layer, attention, ffn, norms=NORMS, norm_plus=self.norm_plus(load))
