"""The family's decoder in plain torch: one module, whose options make it a Llama, a Qwen3-MoE or a SmallThinker.

RMSNorm, half-split RoPE, grouped-query attention, a gated feed-forward part (silu or relu) or a mixture of such, a tied
head. Papers: Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Yang et al. 2025, https://arxiv.org/abs/2505.09388;
Song et al. 2025, https://arxiv.org/abs/2507.20984 (the router before attention). Parameter names are Hugging Face's.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewise.train.recipe import ModelShape


class Note(NamedTuple):
    """What a layer lets us see: of a mixture, what its router read (tokens, dim), probabilities (tokens, experts) and
    the chosen (tokens, k); of a relu gate, its activations (tokens, ffn). Absent things have no elements."""

    read: Tensor
    probs: Tensor
    chosen: Tensor
    active: Tensor


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


class Past:
    """Keys and values of the tokens before, for generation: one pair a layer."""

    def __init__(self, layers: int) -> None:
        self.held: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def __len__(self) -> int:
        return 0 if self.held[0] is None else self.held[0][0].shape[2]

    def grown(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        old = self.held[layer]
        both = (k, v) if old is None else (torch.cat((old[0], k), 2), torch.cat((old[1], v), 2))
        self.held[layer] = both
        return both


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, layer: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.layer, self.dropout = layer, dropout
        self.q_proj = nn.Linear(shape.dim, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.dim, bias=False)
        if shape.layout == "qwen3_moe":
            self.q_norm, self.k_norm = RMSNorm(shape.head_dim, shape.eps), RMSNorm(shape.head_dim, shape.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_proj(x).view(batch, tokens, self.heads, self.head_dim)
        k = self.k_proj(x).view(batch, tokens, self.kv_heads, self.head_dim)
        v = self.v_proj(x).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q.transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(k.transpose(1, 2), cos, sin).to(v.dtype)
        if past is not None:
            k, v = past.grown(self.layer, k, v)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        mask = None
        if 1 < tokens < k.shape[2]:
            mask = torch.ones(tokens, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - tokens)
        causal = tokens == k.shape[2] > 1
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        out = self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))
        return functional.dropout(out, self.dropout, self.training)


class FeedForward(nn.Module):
    """down(act(gate(x)) * up(x)). `forward` also gives what the activation let through."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.up_proj = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.down_proj = nn.Linear(shape.ffn_dim, shape.dim, bias=False)
        self.act = functional.relu if shape.act == "relu" else functional.silu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        active = self.act(self.gate_proj(x))
        return self.down_proj(active * self.up_proj(x)), active


class Mixture(nn.Module):
    """Each token goes to its best experts; softmax over all, the best taken, their weights renormalised."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.dim, shape.experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(shape) for _ in range(shape.experts))
        self.k = shape.experts_per_token

    def forward(self, x: Tensor, routed_by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, routed_by (tokens, dim) → output, probabilities (tokens, experts), chosen (tokens, k)."""
        with torch.autocast(x.device.type, enabled=False):  # a rounded router chooses other experts
            probs = functional.linear(routed_by.float(), self.gate.weight.float()).softmax(-1)
        weights, chosen = probs.topk(self.k, -1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
        token = order // self.k
        parts = x[token].split(counts)
        done = [expert(part)[0] for expert, part in zip(self.experts, parts, strict=True) if len(part)]
        joined = torch.cat(done) * weights.flatten()[order][:, None]
        return torch.zeros_like(x).index_add(0, token, joined.to(x.dtype)), probs, chosen


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, layer: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(shape, layer, dropout)
        self.mlp = Mixture(shape) if shape.experts else FeedForward(shape)
        self.input_layernorm = RMSNorm(shape.dim, shape.eps)
        self.post_attention_layernorm = RMSNorm(shape.dim, shape.eps)
        self.early, self.sparse, self.dropout = shape.early_router, shape.act == "relu", dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> tuple[Tensor, Note]:
        before, nothing = x, x.new_zeros(0)
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past)
        y = self.post_attention_layernorm(x)
        if isinstance(self.mlp, Mixture):
            flat = y.flatten(0, 1)
            read = before.flatten(0, 1) if self.early else flat
            out, probs, chosen = self.mlp(flat, read)
            out, note = out.view_as(y), Note(read, probs, chosen, nothing)
        else:
            out, active = self.mlp(y)
            note = Note(nothing, nothing, nothing, active.flatten(0, 1) if self.sparse else nothing)
        return x + functional.dropout(out, self.dropout, self.training), note


class Body(nn.Module):
    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Layer(shape, n, dropout) for n in range(shape.layers))
        self.norm = RMSNorm(shape.dim, shape.eps)


class Transformer(nn.Module):
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

    def states(self, ids: Tensor, past: Past | None = None) -> tuple[Tensor, list[Note]]:
        """The last hidden states after the norm (batch, tokens, dim), and what each layer lets us see."""
        first = 0 if past is None else len(past)
        x = self.model.embed_tokens(ids)
        cos, sin = self.cos[first : first + ids.shape[1]], self.sin[first : first + ids.shape[1]]
        notes = []
        for layer in self.model.layers:
            x, note = layer(x, cos, sin, past)
            notes.append(note)
        return self.model.norm(x), notes

    def head(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor, past: Past | None = None) -> Tensor:
        return self.head(self.states(ids, past)[0])

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross entropy in nats over targets (batch, tokens); those below zero are left out."""
        kept = targets >= 0
        return cross_entropy(self.head(self.states(ids)[0][kept]), targets[kept], reduction)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    flat = logits.float().view(-1, logits.shape[-1])
    return functional.cross_entropy(flat, targets.reshape(-1), ignore_index=-100, reduction=reduction)
