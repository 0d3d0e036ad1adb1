"""Qwen 1.5 and 2 MoE: many small experts, four or eight per token, and one gated expert that every token shares.

Paper:  Yang et al. 2024, https://arxiv.org/abs/2407.10671
Exact.
Needs:  nothing
Cost:   per token: attention, experts_per_token small experts and the shared one
Status: kept
"""

from dataclasses import replace

from edgewise.base import BadInput
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, MoeFfn
from edgewise.models.specs import FULL, SLIDING, decoder_spec, mixture, with_extra


class Qwen2Moe(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = mixture(decoder_spec(config, context), config, "moe_intermediate_size")
        if config.dialect == "hf" and config.flag("use_sliding_window", False):
            first = config.count("max_window_layers", 28, least=0)
            types = [SLIDING if i % 2 == 0 and i < first else FULL for i in range(spec.layers)]
            window = config.count("sliding_window", 4096)
            spec = replace(spec, windows=config.windows(config.layer_types(spec.layers, types), window))
        shared = config.get("shared_expert_intermediate_size")
        if shared is None:
            raise BadInput(f"{config.where} has no '{config.label('shared_expert_intermediate_size')}'.")
        return with_extra(
            spec,
            shared_dim=config.count("shared_expert_intermediate_size"),
            renormalise=config.flag("norm_topk_prob", False),
        )

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, bias=load.has(f"layers.{layer}.q.bias"))
        ffn = MoeFfn(
            load,
            spec,
            layer,
            routing="softmax",
            renormalise=spec.extra["renormalise"],
            shared=spec.extra["shared_dim"],
        )
        return Block(load, spec, layer, attention, ffn)
