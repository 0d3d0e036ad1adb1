"""Mistral 7B and its successors: Llama's shape with a sliding window in every layer and a free head size.

Paper:  Jiang et al. 2023, https://arxiv.org/abs/2310.06825
Exact.
Needs:  nothing
Cost:   as Llama; attention stops at the window
Status: kept
"""

from dataclasses import replace

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec, optional


class Mistral(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context)
        # A Hugging Face file that does not mention the window means 4096; one that says null means none.
        if config.dialect == "gguf":
            window = config.count("sliding_window") if config.has("sliding_window") else None
        else:
            window = None if optional(config, "sliding_window", 4096) is None else config.count("sliding_window", 4096)
        return replace(spec, windows=(window,) * spec.layers)

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, interleaved=load.dialect == "gguf")
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer))
