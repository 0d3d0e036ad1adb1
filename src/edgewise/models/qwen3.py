"""Qwen 3: Llama's shape with a norm on every head's queries and keys and a free head size.

Paper:  Yang et al. 2025, https://arxiv.org/abs/2505.09388
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, decoder_spec, upper_windows


class Qwen3(Decoder):
    defaults: ClassVar[Mapping[str, Any]] = {"head_dim": 128}

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context)
        return replace(spec, windows=upper_windows(config, spec.layers))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        biases = {"bias": load.has(f"{at}q.bias"), "out_bias": load.has(f"{at}o.bias")}
        attention = Attention(load, spec, layer, rope, qk_norm="head", **biases)
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer))
