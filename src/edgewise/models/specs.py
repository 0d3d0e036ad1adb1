"""From settings to a ModelSpec: what every architecture reads the same way, in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgewise.base import BadInput, Unsupported
from edgewise.models.api import ModelSpec
from edgewise.models.configs import MOST_LAYERS, Config, single
from edgewise.models.float8 import float8_block
from edgewise.models.ropes import RopeSettings

FULL, SLIDING = "full_attention", "sliding_attention"


def decoder_spec(
    config: Config,
    context: int | None = None,
    *,
    theta: float = 10000.0,
    tied: bool = False,
    activations: Sequence[str] = (),
) -> ModelSpec:
    """The settings all decoders share. theta, tied: what the architecture means when the file does not say.

    activations: that the architecture computes itself, beside those every device has.

    `extra` gets: act (the device's name), ropes (layer type → RopeSettings), and the optional factors attn_scale,
    embed_scale, residual_scale, logit_scale, logit_softcap, attn_softcap where the settings have them.
    """
    float8_block(config)  # refuses weights that are packed in unknown ways
    dim, heads = config.count("hidden_size"), config.count("num_attention_heads")
    layers = config.count("num_hidden_layers", most=MOST_LAYERS)
    kv_heads = config.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise BadInput(
            f"'{config.label('num_attention_heads')}' in {config.where} is {heads}, which is no multiple of "
            f"'{config.label('num_key_value_heads')}', {kv_heads}."
        )
    if config.get("head_dim") is None and dim % heads:
        raise BadInput(
            f"'{config.label('hidden_size')}' in {config.where} is {dim}, which is no multiple of "
            f"'{config.label('num_attention_heads')}', {heads}, and there is no '{config.label('head_dim')}'."
        )
    head_dim = config.count("head_dim", dim // heads)
    if config.count("value_dim", head_dim) != head_dim:
        raise Unsupported(f"{config.where} has keys of {head_dim} columns but values of {config.count('value_dim')}.")
    trained = config.count("max_position_embeddings", 2048)
    ropes = rope_settings(config, head_dim, theta, trained)
    activation = config.activation("hidden_act", "hidden_activation", default="silu", more=activations)
    logits_scaling = config.number("logits_scaling")
    extra: dict[str, Any] = {
        "act": activation,
        "ropes": ropes,
        "attn_scale": config.number("attention_multiplier"),
        "embed_scale": config.number("embedding_multiplier"),
        "residual_scale": config.number("residual_multiplier"),
        "logit_scale": single(1 / logits_scaling) if logits_scaling else None,
        "attn_softcap": config.number("attn_logit_softcapping"),
        "logit_softcap": config.number("final_logit_softcapping"),
    }
    eps = config.number("rms_norm_eps", 1e-6)
    return ModelSpec(
        architecture=config.architecture,
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_dim=config.count("intermediate_size"),
        vocab=config.count("vocab_size"),
        context=min(rope.reach(context) for rope in ropes.values()) if ropes else trained,
        eps=eps if eps is not None else 1e-6,
        tied=config.flag("tie_word_embeddings", tied),
        windows=(None,) * layers,
        extra={key: value for key, value in extra.items() if value is not None},
    )


def mixture(spec: ModelSpec, config: Config, width_key: str | None = None) -> ModelSpec:
    """The same model with experts in every layer."""
    experts_key = "num_experts" if config.has("num_experts") else "num_local_experts"  # either, in any architecture
    experts, chosen = config.count(experts_key), config.count("num_experts_per_tok")
    if chosen > experts:
        raise BadInput(
            f"'{config.label('num_experts_per_tok')}' in {config.where} is {chosen} but there are only {experts} "
            f"experts ('{config.label(experts_key)}')."
        )
    if config.get("mlp_only_layers"):
        raise Unsupported(f"'mlp_only_layers' in {config.where} is {config.get('mlp_only_layers')}; only [] is known.")
    if config.get("decoder_sparse_step", 1) != 1:
        step = config.get("decoder_sparse_step")
        raise Unsupported(f"'decoder_sparse_step' in {config.where} is {step}; only 1 is known.")
    width = spec.ffn_dim if width_key is None else config.count(width_key, spec.ffn_dim)
    return replace(spec, experts=experts, experts_per_token=chosen, ffn_dim=width)


def upper_windows(config: Config, layers: int) -> tuple[int | None, ...]:
    """Qwen's rule: with use_sliding_window, the layers from max_window_layers up see only the window."""
    if config.dialect == "gguf" or not config.flag("use_sliding_window", False):
        return (None,) * layers
    first = config.count("max_window_layers", 28, least=0)
    types = config.layer_types(layers, [SLIDING if i >= first else FULL for i in range(layers)])
    return config.windows(types, config.count("sliding_window", 4096))


def gemma_scale(config: Config, spec: ModelSpec, large: int) -> float:
    """1/sqrt(query_pre_attn_scalar). GGUF files leave it out: head_dim, but dim / heads in the family's largest model,
    which is known by its number of layers."""
    given = config.number("attention_multiplier")
    if config.dialect == "gguf" and given is not None:
        return given
    usual = spec.dim // spec.heads if config.dialect == "gguf" and spec.layers == large else spec.head_dim
    return single((config.count("query_pre_attn_scalar", 256) if config.dialect == "hf" else usual) ** -0.5)


def optional(config: Config, key: str, usual: float) -> float | None:
    """Written as null: none. Left out: the usual number."""
    return None if config.has(key) and config.get(key) is None else config.number(key, usual)


def with_extra(spec: ModelSpec, **more: Any) -> ModelSpec:
    return replace(spec, extra={**spec.extra, **more})


def rope_settings(config: Config, head_dim: int, theta: float, trained: int) -> dict[str, RopeSettings]:
    """Rotary settings by layer type, from either Hugging Face dialect or from GGUF metadata."""
    if config.dialect == "gguf":
        found: Mapping[str, Any] = _gguf_rope(config, head_dim)
    else:
        found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping):
        raise BadInput(f"The rope settings in {config.where} must be an object but are {found!r}.")
    nested = {kind: found[kind] for kind in (FULL, SLIDING) if isinstance(found.get(kind), Mapping)}
    usual = {
        key: config.get(key)
        for key in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
        if config.dialect == "hf" and config.get(key) is not None
    }
    each = nested or {FULL: found}
    return {
        kind: RopeSettings({**usual, **params}, head_dim, theta, trained, config.where) for kind, params in each.items()
    }


def _gguf_rope(config: Config, head_dim: int) -> dict[str, Any]:
    scaling = {
        "rope_type": config.raw("rope.scaling.type"),
        "factor": config.raw("rope.scaling.factor"),
        "original_max_position_embeddings": config.raw("rope.scaling.original_context_length"),
        "beta_fast": config.raw("rope.scaling.yarn_beta_fast"),
        "beta_slow": config.raw("rope.scaling.yarn_beta_slow"),
        "rope_theta": config.get("rope_theta"),
    }
    if scaling["rope_type"] == "longrope":
        scaling["attention_factor"] = config.raw("rope.scaling.attn_factor")
    else:
        scaling["attention_factor"] = config.raw("rope.scaling.yarn_attn_factor")
        scaling["extra_factor"] = config.raw("rope.scaling.attn_factor")
    columns = config.raw("rope.dimension_count")
    if isinstance(columns, int) and columns > 0:
        scaling["partial_rotary_factor"] = columns / head_dim
    return {key: value for key, value in scaling.items() if value is not None}
