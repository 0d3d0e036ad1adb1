"""Mixtral: Mistral's attention with a few large experts in every layer, two of them per token.

Paper:  Jiang et al. 2024, https://arxiv.org/abs/2401.04088
Exact.
Needs:  nothing
Cost:   per token: attention plus experts_per_token feed-forward parts; memory for all of them
Status: kept
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, MoeFfn
from edgewise.models.specs import FULL, decoder_spec, mixture


class Mixtral(Decoder):
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "router": ("layers.{i}.block_sparse_moe.gate", "layers.{i}.mlp.gate"),
        "expert.gate": "layers.{i}.block_sparse_moe.experts.{e}.w1",
        "expert.up": "layers.{i}.block_sparse_moe.experts.{e}.w3",
        "expert.down": "layers.{i}.block_sparse_moe.experts.{e}.w2",
        "experts.gate_up": ("layers.{i}.mlp.experts.gate_up_proj", "layers.{i}.block_sparse_moe.experts.gate_up_proj"),
        "experts.down": ("layers.{i}.mlp.experts.down_proj", "layers.{i}.block_sparse_moe.experts.down_proj"),
    }

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = mixture(decoder_spec(config, context, theta=1e6), config, "num_local_experts")
        window = config.count("sliding_window") if config.get("sliding_window") else None
        return replace(spec, windows=(window,) * spec.layers)

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context)
        attention = Attention(load, spec, layer, rope, interleaved=load.dialect == "gguf")
        return Block(load, spec, layer, attention, MoeFfn(load, spec, layer, routing="topk_softmax"))
