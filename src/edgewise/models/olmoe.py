"""OLMoE: 64 small experts in every layer, eight per token, and norms on whole queries and keys.

Paper:  Muennighoff et al. 2024, https://arxiv.org/abs/2409.02060
Exact.
Needs:  nothing
Cost:   per token: attention and experts_per_token small experts
Status: kept
"""

from edgewise.base import Unsupported
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, MoeFfn
from edgewise.models.specs import FULL, decoder_spec, mixture, with_extra


class Olmoe(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        clip = config.get("clip_qkv")
        if clip:
            raise Unsupported(f"'{config.label('clip_qkv')}' in {config.where} is {clip}; clipping is not implemented.")
        width = "moe_intermediate_size" if config.dialect == "gguf" else None
        spec = mixture(decoder_spec(config, context), config, "num_experts", width)
        return with_extra(spec, renormalise=config.flag("norm_topk_prob", False))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        biases = {"bias": load.has(f"{at}q.bias"), "out_bias": load.has(f"{at}o.bias")}
        attention = Attention(load, spec, layer, rope, qk_norm="whole", **biases)
        ffn = MoeFfn(load, spec, layer, routing="softmax", renormalise=spec.extra["renormalise"])
        return Block(load, spec, layer, attention, ffn)
