"""SmallThinker: a router that reads the layer's input, so that experts are known, and can be read, before attention.

Paper:  Song et al. 2025, https://arxiv.org/abs/2507.20984
Exact.
Needs:  nothing
Cost:   per token: attention and experts_per_token small experts, whose gate is a relu
Status: kept
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from edgewise.base import BadInput, Tap, Unsupported
from edgewise.kernels.api import Array, Device
from edgewise.models.api import Batch, Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, MoeFfn
from edgewise.models.specs import FULL, decoder_spec, with_extra

_MOE = "layers.{i}.block_sparse_moe."


class EarlyBlock(Block):
    """A layer whose experts are chosen by what comes in, without a norm."""

    ffn: MoeFfn

    def run(self, device: Device, x: Array, batch: Batch, farthest: int) -> Array:
        moe = self.ffn
        logits = moe.router.run(device, x)
        if batch.listen is not None:
            batch.listen(Tap.GATE, moe.layer, logits)
        routing = device.top_k(logits, moe.k, moe.routing, moe.renormalise)
        moe.expect(routing)
        x = self.attention.run(device, x, self.attn_norm, batch, farthest, add=x)
        assert self.ffn_norm is not None
        y = moe.mix(device, device.rms_norm(x, self.ffn_norm, self.eps), logits, routing)
        return device.add(y, x)


class SmallThinker(Decoder):
    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "router": f"{_MOE}primary_router",
        "expert.gate": f"{_MOE}experts.{{e}}.gate",
        "expert.up": f"{_MOE}experts.{{e}}.up",
        "expert.down": f"{_MOE}experts.{{e}}.down",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"intermediate_size": 1}  # its files say moe_ffn_hidden_size instead

    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        if config.dialect == "gguf":
            raise Unsupported(f"{config.where}: SmallThinker is read from Hugging Face folders only.")
        spec = decoder_spec(config, context, theta=1.5e6)
        experts, chosen = config.count("moe_num_primary_experts"), config.count("moe_num_active_primary_experts")
        if chosen > experts:
            raise BadInput(f"{config.where} wants {chosen} experts a token but there are only {experts}.")
        layouts = {}
        for key, usual in (("rope_layout", 1), ("sliding_window_layout", 0)):
            layouts[key] = config.get(key) or [usual] * spec.layers
            if not isinstance(layouts[key], list) or len(layouts[key]) != spec.layers:
                raise BadInput(f"'{key}' in {config.where} must list {spec.layers} zeros and ones.")
        if config.get("moe_enable_secondary_experts"):
            raise Unsupported(f"'moe_enable_secondary_experts' in {config.where} is true; only false is known.")
        window = config.count("sliding_window_size", 4096)
        windows = tuple(window if flag else None for flag in layouts["sliding_window_layout"])
        spec = replace(spec, experts=experts, experts_per_token=chosen, ffn_dim=config.count("moe_ffn_hidden_size"),
                       windows=windows)  # fmt: skip
        softmax = config.flag("moe_primary_router_apply_softmax", False)
        early = config.flag("moe_enable_early_router", True)
        return with_extra(spec, act="relu", rotates=tuple(map(bool, layouts["rope_layout"])), softmax=softmax,
                          early=early)  # fmt: skip

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        rope = load.rope(spec.extra["ropes"][FULL], spec.context) if spec.extra["rotates"][layer] else None
        attention = Attention(load, spec, layer, rope)
        softmax = spec.extra["softmax"]
        ffn = MoeFfn(load, spec, layer, routing="topk_softmax" if softmax else "sigmoid", renormalise=not softmax)
        return (EarlyBlock if spec.extra["early"] else Block)(load, spec, layer, attention, ffn)
