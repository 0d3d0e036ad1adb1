"""BitNet b1.58: Llama's shape with ternary weights, a norm before each output projection, and squared relu.

Paper:  Ma et al. 2024, https://arxiv.org/abs/2402.17764; 2B4T: https://arxiv.org/abs/2504.12285
Exact.  Activations are rounded by group, more finely than the one scale a token that the model was trained with.
Needs:  nothing
Cost:   as Llama; packed weights take 2.125 bits each
Status: kept
"""

from collections.abc import Mapping
from typing import ClassVar

from edgewise.base import Unsupported
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, SubNormFfn
from edgewise.models.specs import FULL, decoder_spec


class BitNet(Decoder):
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "attn_sub_norm": "layers.{i}.self_attn.attn_sub_norm",
        "ffn_sub_norm": "layers.{i}.mlp.ffn_sub_norm",
    }

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        if config.dialect == "gguf":
            raise Unsupported(
                f"{config.where} is a BitNet model in a GGUF file, whose variants differ in activation and scales. "
                "Take the Hugging Face folder with packed weights."
            )
        return decoder_spec(config, context, theta=500000.0, activations=("relu2",))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, bias=load.has(f"layers.{layer}.q.bias"), sub_norm=True)
        return Block(load, spec, layer, attention, SubNormFfn(load, spec, layer))
