"""OLMo 2: norms after attention and after the feed-forward part instead of before, and on whole queries and keys.

Paper:  OLMo Team 2024, https://arxiv.org/abs/2501.00656
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

from collections.abc import Mapping
from typing import ClassVar

from edgewise.base import Unsupported
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec


class Olmo2(Decoder):
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "attn_post_norm": "layers.{i}.post_attention_layernorm",
        "ffn_post_norm": "layers.{i}.post_feedforward_layernorm",
    }

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        if config.dialect == "gguf" and config.get("sliding_window"):
            raise Unsupported(f"{config.where} has '{config.label('sliding_window')}': it is an OLMo 3, not an OLMo 2.")
        return decoder_spec(config, context)

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        biases = {"bias": load.has(f"{at}q.bias"), "out_bias": load.has(f"{at}o.bias")}
        attention = Attention(load, spec, layer, rope, qk_norm="whole", **biases)
        ffn = DenseFfn(load, spec, layer)
        return Block(load, spec, layer, attention, ffn, norms=("attn_post_norm", "ffn_post_norm"))
