"""A GGUF file laid out by the rules of llama.cpp's converter gives the bits that the Hugging Face directory gives.

The writer here knows nothing of edgewise's own names and conversion: it is a second opinion on both.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.kernels.api import Device
from edgewise.models import load_model, read_spec
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import VOCAB, tiny_model, tiny_tensors
from edgewise.weights import open_checkpoint

gguf = pytest.importorskip("gguf", reason="the hand-written GGUF files need the gguf package")

ARCH = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2",
    "gemma3_text": "gemma3", "phi3": "phi3", "olmo2": "olmo2", "smollm3": "smollm3", "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe", "olmoe": "olmoe",
}  # fmt: skip
PERMUTED = ("llama", "smollm3")
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
    "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}  # fmt: skip
POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
EXPERT = {
    "gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps",
    "w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps",
}  # fmt: skip


def permute(values: Any, heads: int) -> Any:
    """The llama family's files pair neighbouring rows for rope."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def write_gguf(architecture: str, config: dict[str, Any], tensors: dict[str, Any], path: Path) -> None:
    arch = ARCH[architecture]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    out = gguf.GGUFWriter(path, arch)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(kv)
    out.add_key_length(head_dim)
    out.add_value_length(head_dim)
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_rope_dimension_count(int(head_dim * config.get("partial_rotary_factor", 1.0)))
    if config.get("sliding_window"):
        out.add_sliding_window(config["sliding_window"])
    if arch == "gemma3":
        out.add_rope_freq_base_swa(config["rope_local_base_freq"])
        out.add_array("gemma3.attention.sliding_window_pattern", [True, True, False])
    if arch.startswith("gemma"):
        out.add_float32(f"{arch}.attention.scale", config["query_pre_attn_scalar"] ** -0.5)
    if arch == "gemma2":
        out.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        out.add_final_logit_softcapping(config["final_logit_softcapping"])
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        out.add_expert_count(experts)
        out.add_expert_used_count(config["num_experts_per_tok"])
        if "moe_intermediate_size" in config:
            out.add_expert_feed_forward_length(config["moe_intermediate_size"])
        if "shared_expert_intermediate_size" in config:
            out.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    for key, value in rope_extras(config, head_dim, out).items():
        out.add_tensor(key, value)
    out.add_token_list([f"t{i}" for i in range(VOCAB)])

    stacks: dict[str, list[Any]] = {}
    for name, values in tensors.items():
        plus = np.float32(1) if arch.startswith("gemma") and "norm" in name else np.float32(0)
        if not name.startswith("model.layers."):
            plain = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            out.add_tensor(plain[name.removesuffix(".weight")] + ".weight", values + plus)
            continue
        _, _, layer, rest = name.split(".", 3)
        part, suffix = rest.rsplit(".", 1)
        if arch in PERMUTED and part in ("self_attn.q_proj", "self_attn.k_proj"):
            values = permute(values, heads if "q_proj" in part else kv)
        if ".experts." in part:
            stacks.setdefault(f"blk.{layer}.{EXPERT[part.rsplit('.', 1)[1]]}.weight", []).append(values)
            continue
        table = {**PARTS, **POST_NORMS} if arch.startswith("gemma") or arch == "olmo2" else PARTS
        out.add_tensor(f"blk.{layer}.{table[part]}.{suffix}", values + plus)
    for name, parts in stacks.items():
        out.add_tensor(name, np.stack(parts))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def rope_extras(config: dict[str, Any], head_dim: int, out: Any) -> dict[str, Any]:
    """Metadata for a scaled rope, and the tensors some kinds keep their divisors in."""
    scaling = config.get("rope_scaling")
    if scaling is None:
        return {}
    kind = scaling.get("rope_type") or scaling["type"]
    if kind == "linear":
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(scaling["factor"])
    elif kind == "yarn":
        out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        out.add_rope_scaling_factor(scaling["factor"])
        out.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    elif kind == "longrope":
        original = config["original_max_position_embeddings"]
        factor = math.sqrt(1 + math.log(config["max_position_embeddings"] / original) / math.log(original))
        out.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        out.add_rope_scaling_orig_ctx_len(original)
        out.add_rope_scaling_attn_factors(factor)
        return {f"rope_factors_{k}.weight": np.array(scaling[f"{k}_factor"], np.float32) for k in ("short", "long")}
    elif kind == "llama3":
        low, high, old = (
            scaling[k] for k in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        )
        factors = []
        for i in range(0, head_dim, 2):
            wave = 2 * math.pi * config["rope_theta"] ** (i / head_dim)
            smooth = (old / wave - low) / (high - low)
            ramp = 1 / ((1 - smooth) / scaling["factor"] + smooth)
            factors.append(1 if wave < old / high else scaling["factor"] if wave > old / low else ramp)
        return {"rope_freqs.weight": np.array(factors, np.float32)}
    return {}


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONG = {
    "type": "longrope",
    "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0],
}
CASES: dict[str, tuple[str, dict[str, Any], float]] = {  # architecture, settings, largest difference of logits
    **{name: (name, {}, 0.0) for name in ARCH},
    "llama-biases": ("llama", {"attention_bias": True, "num_key_value_heads": 3}, 0.0),
    "llama-linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 0.0),
    "llama-yarn": (
        "llama",
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
        0.0,
    ),
    # The divisors in the file are computed here in double precision: the last bit of a frequency may differ.
    "llama-llama3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0}, 1e-4),
    "phi3-longrope": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 64}, 0.0),
    "qwen3_moe-tied": ("qwen3_moe", {"tie_word_embeddings": True}, 0.0),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_gguf_and_hugging_face_agree(name: str, tmp_path: Path, reference: Device) -> None:
    architecture, overrides, apart = CASES[name]
    folder = tiny_model(architecture, tmp_path / "hf", seed=3, **overrides)
    config = json.loads((folder / "config.json").read_text())
    path = tmp_path / "model.gguf"
    write_gguf(architecture, config, tiny_tensors(architecture, config, 3), path)
    prompt = np.random.default_rng(0).integers(0, VOCAB, 50).tolist()
    models = [load_model(open_checkpoint(p), reference) for p in (folder, path)]
    for key in ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn_dim", "vocab", "context", "eps", "tied",
                "windows", "experts", "experts_per_token"):  # fmt: skip
        assert getattr(models[0].spec, key) == getattr(models[1].spec, key), key
    hf, other = (Driver(model, reference).logits(prompt) for model in models)
    if apart:
        assert np.abs(hf - other).max() <= apart
    else:
        assert np.array_equal(hf.view(np.uint32), other.view(np.uint32))


def test_one_name_in_gguf_files_means_three_architectures(tmp_path: Path) -> None:
    for architecture in ("llama", "mistral", "mixtral"):
        folder = tiny_model(architecture, tmp_path / architecture)
        config = json.loads((folder / "config.json").read_text())
        path = tmp_path / f"{architecture}.gguf"
        write_gguf(architecture, config, tiny_tensors(architecture, config, 0), path)
        header = open_checkpoint(path).header()
        assert header.architecture == "llama"
        spec = read_spec(header)
        assert spec.experts == (4 if architecture == "mixtral" else 0)
        assert spec.windows == ((16, 16) if architecture == "mistral" else (None, None))
