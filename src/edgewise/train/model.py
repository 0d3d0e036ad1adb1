"""A small Llama in plain torch: RMSNorm, half-split RoPE, grouped-query attention, SwiGLU, tied head.

Parameter names are Hugging Face's, so that its saved weights are a LlamaForCausalLM directory.
Paper: Touvron et al. 2023, https://arxiv.org/abs/2302.13971
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edgewise.base import BadInput
from edgewise.train.recipe import ModelShape


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on (batch, heads, tokens, head_dim); cos and sin are (tokens, head_dim / 2)."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.dim, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.dim, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_proj(x).view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out = self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))
        return functional.dropout(out, self.dropout, self.training)


class FeedForward(nn.Module):
    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.up_proj = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.down_proj = nn.Linear(shape.ffn_dim, shape.dim, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        out = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return functional.dropout(out, self.dropout, self.training)


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(shape, dropout)
        self.mlp = FeedForward(shape, dropout)
        self.input_layernorm = RMSNorm(shape.dim, shape.eps)
        self.post_attention_layernorm = RMSNorm(shape.dim, shape.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.dim, shape.eps)


class Llama(nn.Module):
    """`forward` gives logits (batch, tokens, vocab). `dropout` falls on each block's output, in training only."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: ModelShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape, dropout)
        inv_freq = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        angles = torch.arange(shape.context, dtype=torch.float64)[:, None] * inv_freq
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.model.apply(self._init)

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, Attention):
            nn.init.normal_(module.o_proj.weight, std=0.02 / math.sqrt(2 * self.shape.layers))
        if isinstance(module, FeedForward):
            nn.init.normal_(module.down_proj.weight, std=0.02 / math.sqrt(2 * self.shape.layers))

    def forward(self, ids: Tensor) -> Tensor:
        tokens = ids.shape[1]
        x = self.model.embed_tokens(ids)
        cos, sin = self.cos[:tokens], self.sin[:tokens]
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return functional.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross entropy in nats over targets (batch, tokens); those below zero are left out."""
        logits = self(ids).float()
        return functional.cross_entropy(
            logits.view(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-100, reduction=reduction
        )


def hf_config(shape: ModelShape, dtype: str, bos: int, eos: int) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn_dim,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": dtype,
    }


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
    """Writes config.json and safetensors, in several files once one would pass `shard_bytes`."""
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
    config = hf_config(shape, str(dtype).removeprefix("torch."), bos, eos)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_hf(folder: Path) -> Llama:
    """The model that `save_hf` wrote, in float32 on the CPU. Raises BadInput when the folder holds none."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise BadInput(f"{folder} holds no trained model (config.json and model*.safetensors).")
    config = json.loads((folder / "config.json").read_text())
    shape = ModelShape(
        vocab=config["vocab_size"], dim=config["hidden_size"], layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"], kv_heads=config["num_key_value_heads"], head_dim=config["head_dim"],
        ffn_dim=config["intermediate_size"], context=config["max_position_embeddings"],
        rope_theta=config["rope_theta"], eps=config["rms_norm_eps"],
    )  # fmt: skip
    state = {name: tensor.float() for file in files for name, tensor in load_file(file).items()}
    model = Llama(shape)
    model.load_state_dict(state)
    return model.eval()
