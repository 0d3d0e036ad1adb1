"""Qwen 3 MoE: Qwen 3's attention with many small experts in every layer, eight per token, none shared.

Paper:  Yang et al. 2025, https://arxiv.org/abs/2505.09388
Exact.
Needs:  nothing
Cost:   per token: attention and experts_per_token small experts
Status: kept
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, MoeFfn
from edgewise.models.specs import FULL, decoder_spec, mixture, with_extra


class Qwen3Moe(Decoder):
    defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = mixture(decoder_spec(config, context), config, "num_experts", "moe_intermediate_size")
        if config.dialect == "hf" and config.flag("use_sliding_window", False):
            spec = replace(spec, windows=(config.count("sliding_window", 4096),) * spec.layers)
        # GGUF files of this architecture always mean renormalised weights and need not say so.
        return with_extra(spec, renormalise=config.flag("norm_topk_prob", config.dialect == "gguf"))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        biases = {"bias": load.has(f"{at}q.bias"), "out_bias": load.has(f"{at}o.bias")}
        attention = Attention(load, spec, layer, rope, qk_norm="head", **biases)
        ffn = MoeFfn(load, spec, layer, routing="softmax", renormalise=spec.extra["renormalise"])
        return Block(load, spec, layer, attention, ffn)
