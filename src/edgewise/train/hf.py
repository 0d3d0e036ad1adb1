"""Folders as Hugging Face lays them out: config.json and safetensors of a Llama, a Qwen3-MoE or a SmallThinker.

SmallThinker: https://huggingface.co/PowerInfer/SmallThinker-4BA0.6B-Instruct; transformers itself has no such class.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewise.base import BadInput
from edgewise.train.model import Transformer
from edgewise.train.recipe import ModelShape

CLASSES = {"llama": "LlamaForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "smallthinker": "SmallThinkerForCausalLM"}
# Our names (Qwen3-MoE's) → SmallThinker's.
SMALLTHINKER = (
    (".mlp.gate.weight", ".block_sparse_moe.primary_router.weight"), (".mlp.experts.", ".block_sparse_moe.experts."),
    (".gate_proj.", ".gate."), (".up_proj.", ".up."), (".down_proj.", ".down."),
)  # fmt: skip


def hf_name(name: str, layout: str) -> str:
    """The stored name of a parameter."""
    for ours, theirs in SMALLTHINKER if layout == "smallthinker" else ():
        name = name.replace(ours, theirs)
    return name


def hf_config(shape: ModelShape, dtype: str, bos: int, eos: int) -> dict[str, Any]:
    """config.json of a model of this shape."""
    config: dict[str, Any] = {
        "architectures": [CLASSES[shape.layout]],
        "model_type": shape.layout,
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.eps,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": dtype,
    }
    if shape.layout == "smallthinker":
        return config | {
            "moe_num_primary_experts": shape.experts,
            "moe_num_active_primary_experts": shape.experts_per_token,
            "moe_ffn_hidden_size": shape.ffn_dim,
            "moe_primary_router_apply_softmax": True,
            "moe_enable_early_router": True,
            "moe_enable_secondary_experts": False,
            "norm_topk_prob": True,
            "rope_layout": [1] * shape.layers,
            "sliding_window_layout": [0] * shape.layers,
            "sliding_window_size": shape.context,
        }
    config |= {"intermediate_size": shape.ffn_dim, "hidden_act": shape.act, "attention_bias": False}
    if shape.layout == "qwen3_moe":
        return config | {
            "num_experts": shape.experts, "num_experts_per_tok": shape.experts_per_token, "norm_topk_prob": True,
            "moe_intermediate_size": shape.ffn_dim, "decoder_sparse_step": 1, "mlp_only_layers": [],
            "use_sliding_window": False,
        }  # fmt: skip
    return config | {"mlp_bias": False}


def shape_of(config: dict[str, Any]) -> ModelShape:
    """The shape that a config.json of ours describes."""
    early = config["model_type"] == "smallthinker"
    ffn = config.get("moe_ffn_hidden_size") or config.get("moe_intermediate_size") or config["intermediate_size"]
    return ModelShape(
        vocab=config["vocab_size"], dim=config["hidden_size"], layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"], kv_heads=config["num_key_value_heads"], head_dim=config["head_dim"],
        ffn_dim=ffn, context=config["max_position_embeddings"],
        rope_theta=config["rope_theta"], eps=config["rms_norm_eps"],
        act="relu" if early else config["hidden_act"],
        experts=config.get("num_experts") or config.get("moe_num_primary_experts") or 0,
        experts_per_token=config.get("num_experts_per_tok") or config.get("moe_num_active_primary_experts") or 2,
        early_router=early,
    )  # fmt: skip


def save_tensors(state: dict[str, Tensor], folder: Path, dtype: torch.dtype, shard_bytes: int = 12 << 20) -> None:
    """model.safetensors, or several files and their index once one would pass `shard_bytes`."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, value in sorted(state.items()):
        tensor = value.detach().to("cpu", dtype).contiguous()
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        room -= tensor.nbytes
        shards[-1][name] = tensor
    names = ["model.safetensors"] if len(shards) == 1 else [
        f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))
    ]  # fmt: skip
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, {"format": "pt"})
    if len(shards) > 1:
        where = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(t.nbytes for shard in shards for t in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, in float32. Raises BadInput when the folder holds no model."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise BadInput(f"{folder} holds no trained model (config.json and model*.safetensors).")
    return {name: tensor.float() for file in files for name, tensor in load_file(file).items()}


def save_hf(
    state: dict[str, Tensor],
    shape: ModelShape,
    folder: Path,
    *,
    bos: int,
    eos: int,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = 12 << 20,
) -> None:
    """Writes config.json and the weights."""
    stored = {hf_name(name, shape.layout): value for name, value in state.items()}
    save_tensors(stored, folder, dtype, shard_bytes)
    config = hf_config(shape, str(dtype).removeprefix("torch."), bos, eos)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_hf(folder: Path) -> Transformer:
    """The model that `save_hf` wrote, in float32 on the CPU. Raises BadInput when the folder holds none."""
    stored = load_tensors(folder)
    shape = shape_of(json.loads((folder / "config.json").read_text()))
    model = Transformer(shape)
    model.load_state_dict({name: stored[hf_name(name, shape.layout)] for name in model.state_dict()})
    return model.eval()
