"""Qwen 2 and 2.5: Llama's shape with biases on queries, keys and values; windows in the upper layers when asked for.

Paper:  Yang et al. 2024, https://arxiv.org/abs/2407.10671
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

from dataclasses import replace

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec, upper_windows


class Qwen2(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context)
        return replace(spec, windows=upper_windows(config, spec.layers))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, bias=True)
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer))
