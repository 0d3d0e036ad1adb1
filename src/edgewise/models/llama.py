"""Llama 1 to 3.3, and the many models that took its shape: pre-norm, grouped queries, SwiGLU.

Paper:  Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783
Exact.
Needs:  nothing
Cost:   per token and layer: 2 * (weights of the layer) operations, attention over the context
Status: kept
"""

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec


class Llama(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        return decoder_spec(config, context)

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        attention = Attention(
            load,
            spec,
            layer,
            load.rope(spec.extra["ropes"][FULL], spec.context),
            bias=load.has(f"{at}q.bias"),
            out_bias=load.has(f"{at}o.bias"),
            interleaved=load.dialect == "gguf",
        )
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer, bias=load.has(f"{at}up.bias")))
