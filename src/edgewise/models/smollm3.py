"""SmolLM 3: Llama's shape in which some layers, usually every fourth, have no positional embedding at all.

Paper:  Bakouch et al. 2025, https://huggingface.co/blog/smollm3; NoPE: Yang et al. 2025, https://arxiv.org/abs/2501.18795
Exact.
Needs:  nothing
Cost:   as Llama
Status: kept
"""

from dataclasses import replace

from edgewise.base import BadInput
from edgewise.models.api import Loader, ModelSpec
from edgewise.models.configs import Config
from edgewise.models.layers import Attention, Block, Decoder, DenseFfn
from edgewise.models.specs import FULL, SLIDING, decoder_spec, with_extra


class SmolLM3(Decoder):
    @classmethod
    def read(cls, config: Config, context: int | None = None) -> ModelSpec:
        spec = decoder_spec(config, context, theta=2e6, tied=True)
        every = config.count("no_rope_layer_interval", 4)
        turned = config.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(spec.layers)]
        if not isinstance(turned, list) or len(turned) != spec.layers:
            raise BadInput(f"'no_rope_layers' in {config.where} must list {spec.layers} zeros and ones: {turned!r}.")
        windows = spec.windows
        if config.dialect == "hf" and config.flag("use_sliding_window", False) and config.get("sliding_window"):
            types = config.layer_types(spec.layers, [FULL if rotates else SLIDING for rotates in turned])
            windows = config.windows(types, config.count("sliding_window"))
        return with_extra(replace(spec, windows=windows), rotates=tuple(bool(flag) for flag in turned))

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        at = f"layers.{layer}."
        attention = Attention(
            load,
            spec,
            layer,
            load.rope(spec.extra["ropes"][FULL], spec.context) if spec.extra["rotates"][layer] else None,
            bias=load.has(f"{at}q.bias"),
            out_bias=load.has(f"{at}o.bias"),
            interleaved=load.dialect == "gguf",
        )
        return Block(load, spec, layer, attention, DenseFfn(load, spec, layer, bias=load.has(f"{at}up.bias")))
