"""Phi 3, 3.5 and 4-mini: Llama's shape with q, k, v stored as one tensor, gate and up as another, and long rope.

Paper:  Abdin et al. 2024, https://arxiv.org/abs/2404.14219; Ding et al. 2024 (LongRoPE), https://arxiv.org/abs/2402.13753
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec


class Phi3(Decoder):
    gguf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {"gate_up": "blk.{i}.ffn_up"}

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context)
        window = config.count("sliding_window") if config.get("sliding_window") else None
        return replace(spec, windows=(window,) * spec.layers)

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, fused=load.has(f"layers.{layer}.qkv"))
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer, fused="gate_up"))
