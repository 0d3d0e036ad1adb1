"""The parts every decoder is made of. The one place where linear layers, norms and activations are put together.

A part is built from a Loader and a ModelSpec, keeps weights, and runs on whatever device they were loaded to. When a
loader only checks (no device), parts hold nothing and are thrown away.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np

from edgewise.base import Tap
from edgewise.kernels.api import Array, AttnSpec, Device, Ints, Routing, Weight
from edgewise.models.api import Batch, Loader, ModelSpec
from edgewise.models.ropes import RopeTable

NOTHING = nullcontext()


class Linear:
    """x @ w.T (+ bias): the bias is used when the checkpoint has one and `bias` allows it."""

    def __init__(
        self,
        load: Loader,
        name: str,
        shape: tuple[int, int],
        *,
        bias: bool = False,
        rows: Ints | None = None,
        stored_rows: int = 0,
    ) -> None:
        self.weight: Weight = load.weight(name, shape, rows, stored_rows)
        self.bias: Array | None = load.vector(f"{name}.bias", shape[0], rows) if bias else None

    def run(self, device: Device, x: Array, add: Array | None = None) -> Array:
        return device.linear(x, self.weight, self.bias, add)


def interleaved_rows(heads: int, head_dim: int) -> Ints:
    """Where each row of a (heads * head_dim, in) projection lies in a GGUF file of the llama family.

    Those files pair neighbouring columns for rope; we (and Hugging Face) pair a column with the one half a head away.
    """
    order = np.arange(heads * head_dim, dtype=np.int32).reshape(heads, head_dim // 2, 2)
    return np.ascontiguousarray(order.transpose(0, 2, 1)).ravel()


class Attention:
    """Queries, keys and values, optional norms on queries and keys, rope, the cache's attention, the output projection.

    bias: q, k and v have biases; out_bias: the output projection has one.
    qk_norm: None, "head" (each head by itself) or "whole" (all heads together).
    fused: q, k and v are one stored tensor. interleaved: the file's q and k rows are permuted (GGUF, llama family).
    sub_norm: a norm before the output projection.
    """

    def __init__(
        self,
        load: Loader,
        spec: ModelSpec,
        layer: int,
        rope: RopeTable | None,
        *,
        bias: bool = False,
        out_bias: bool = False,
        qk_norm: str | None = None,
        norm_plus: float = 0.0,
        fused: bool = False,
        interleaved: bool = False,
        sub_norm: bool = False,
    ) -> None:
        at, head = f"layers.{layer}.", spec.head_dim
        sizes = {"q": spec.heads * head, "k": spec.kv_heads * head, "v": spec.kv_heads * head}
        self.rope = rope
        self.eps = spec.eps
        self.spec = AttnSpec(
            layer=layer,
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            head_dim=head,
            scale=spec.extra.get("attn_scale") or 1 / math.sqrt(head),
            window=spec.windows[layer] if spec.windows else None,
            softcap=spec.extra.get("attn_softcap"),
        )
        parts, first = {}, 0
        for name, size in sizes.items():
            if fused:
                rows = np.arange(first, first + size, dtype=np.int32)
                parts[name] = Linear(load, f"{at}qkv", (size, spec.dim), rows=rows, stored_rows=sum(sizes.values()))
                first += size
            else:
                order = interleaved_rows(size // head, head) if interleaved and name != "v" else None
                parts[name] = Linear(load, f"{at}{name}", (size, spec.dim), bias=bias, rows=order)
        self.q, self.k, self.v = parts["q"], parts["k"], parts["v"]
        self.o = Linear(load, f"{at}o", (spec.dim, sizes["q"]), bias=out_bias)
        self.sub_norm = load.vector(f"{at}attn_sub_norm", sizes["q"]) if sub_norm else None
        self.q_norm = self.k_norm = None
        if qk_norm is not None:
            whole = qk_norm == "whole"
            self.q_norm = load.vector(f"{at}q_norm", sizes["q"] if whole else head, plus=norm_plus)
            self.k_norm = load.vector(f"{at}k_norm", sizes["k"] if whole else head, plus=norm_plus)

    def run(
        self, device: Device, x: Array, norm: Array | None, batch: Batch, farthest: int, add: Array | None = None
    ) -> Array:
        """x (tokens, dim), normalised with `norm` first → (tokens, dim), plus `add`. farthest: the highest position."""
        table = None if self.rope is None else self.rope.upto(farthest)
        q, k, v = device.qkv(
            x, self.q.weight, self.k.weight, self.v.weight,
            q_bias=self.q.bias, k_bias=self.k.bias, v_bias=self.v.bias,
            norm=norm, q_norm=self.q_norm, k_norm=self.k_norm, eps=self.eps,
            positions=batch.positions, table=table, head_dim=self.spec.head_dim,
        )  # fmt: skip
        y = batch.kv.attend(self.spec, q, k, v, batch.plan)
        if self.sub_norm is not None:
            y = device.rms_norm(y, self.sub_norm, self.eps)
        return self.o.run(device, y, add)


class DenseFfn:
    """down(act(gate(x)) * up(x)). fused: gate and up are one stored tensor, gate first."""

    def __init__(
        self, load: Loader, spec: ModelSpec, layer: int, *, bias: bool = False, fused: str | None = None
    ) -> None:
        at, shape = f"layers.{layer}.", (spec.ffn_dim, spec.dim)
        if fused is None:
            self.gate = Linear(load, f"{at}gate", shape, bias=bias)
            self.up = Linear(load, f"{at}up", shape, bias=bias)
        else:
            rows = np.arange(spec.ffn_dim, dtype=np.int32)
            self.gate = Linear(load, f"{at}{fused}", shape, rows=rows, stored_rows=2 * spec.ffn_dim)
            self.up = Linear(load, f"{at}{fused}", shape, rows=rows + spec.ffn_dim, stored_rows=2 * spec.ffn_dim)
        self.down = Linear(load, f"{at}down", (spec.dim, spec.ffn_dim), bias=bias)
        self.act: str = spec.extra["act"]
        self.eps = spec.eps
        stream = getattr(load, "stream", None)  # under a memory budget
        self.rows = None if stream is None else stream.neurons(layer)

    def run(self, device: Device, x: Array, norm: Array | None, batch: Batch, add: Array | None = None) -> Array:
        if self.rows is not None:
            return self.rows.run(device, x, norm, self.eps, add)
        gate, up, down = self.gate, self.up, self.down
        return device.ffn(
            x, gate.weight, up.weight, down.weight, self.act, gate_bias=gate.bias, up_bias=up.bias,
            down_bias=down.bias, norm=norm, eps=self.eps, add=add,
        )  # fmt: skip


class SubNormFfn:
    """down(norm(act(gate(x)) * up(x))). act: a device's, or "relu2", the square of relu."""

    def __init__(self, load: Loader, spec: ModelSpec, layer: int) -> None:
        at, shape = f"layers.{layer}.", (spec.ffn_dim, spec.dim)
        self.gate = Linear(load, f"{at}gate", shape)
        self.up = Linear(load, f"{at}up", shape)
        self.down = Linear(load, f"{at}down", (spec.dim, spec.ffn_dim))
        self.norm = load.vector(f"{at}ffn_sub_norm", spec.ffn_dim)
        self.act: str = spec.extra["act"]
        self.eps = spec.eps

    def run(self, device: Device, x: Array, norm: Array | None, batch: Batch, add: Array | None = None) -> Array:
        if norm is not None:
            x = device.rms_norm(x, norm, self.eps)
        gate, y = self.gate.run(device, x), self.up.run(device, x)
        if self.act == "relu2":
            y = device.act_mul(gate, device.act_mul(gate, y, "relu"), "relu")
        else:
            y = device.act_mul(gate, y, self.act)
        return self.down.run(device, device.rms_norm(y, self.norm, self.eps), add)


class MoeFfn:
    """Each token goes to its best experts; their outputs are added with the router's weights.

    routing: "softmax" (over all experts, then the best) or "topk_softmax" (the best, then softmax over them).
    shared: width of an expert that every token goes to, weighted by a sigmoid gate; 0: none.
    """

    def __init__(
        self, load: Loader, spec: ModelSpec, layer: int, *, routing: str, renormalise: bool = False, shared: int = 0
    ) -> None:
        at, dim = f"layers.{layer}.", spec.dim
        self.layer = layer
        self.k = spec.experts_per_token
        self.routing = routing
        self.renormalise = renormalise
        self.eps = spec.eps
        self.act: str = spec.extra["act"]
        self.router = Linear(load, f"{at}router", (spec.experts, dim))
        self.gate = load.experts(layer, "gate", spec.experts, (spec.ffn_dim, dim))
        self.up = load.experts(layer, "up", spec.experts, (spec.ffn_dim, dim))
        self.down = load.experts(layer, "down", spec.experts, (dim, spec.ffn_dim))
        self.shared = SharedExpert(load, spec, layer, shared) if shared else None
        stream = getattr(load, "stream", None)  # under a memory budget
        self.streamed = None if stream is None else stream.experts(self)

    def choose(self, device: Device, x: Array) -> tuple[Array, Routing]:
        """The router's logits for normalised rows, and whom it takes."""
        logits = self.router.run(device, x)
        return logits, device.top_k(logits, self.k, self.routing, self.renormalise)

    def expect(self, routing: Routing) -> None:
        """Who was chosen before others have computed may be read meanwhile."""
        if self.streamed is not None:
            self.streamed.expect(routing)

    def mix(self, device: Device, x: Array, logits: Array, routing: Routing) -> Array:
        """The chosen experts' results, added with their weights."""
        if self.streamed is None:
            return device.moe(x, routing, self.gate, self.up, self.down, self.act)
        return self.streamed.run(device, x, logits, routing, self.gate, self.up, self.down, self.act)

    def run(self, device: Device, x: Array, norm: Array | None, batch: Batch, add: Array | None = None) -> Array:
        if norm is not None:
            x = device.rms_norm(x, norm, self.eps)
        logits = self.router.run(device, x)
        if batch.listen is not None:
            batch.listen(Tap.GATE, self.layer, logits)
        routing = device.top_k(logits, self.k, self.routing, self.renormalise)
        y = self.mix(device, x, logits, routing)
        if self.shared is not None:
            y = device.add(y, self.shared.run(device, x))
        return y if add is None else device.add(y, add)


class SharedExpert:
    """sigmoid(gate · x) * ffn(x), run as a mixture of one expert whose routing weight is the sigmoid."""

    def __init__(self, load: Loader, spec: ModelSpec, layer: int, width: int) -> None:
        at, dim = f"layers.{layer}.", spec.dim
        self.act: str = spec.extra["act"]
        self.gate_logit = Linear(load, f"{at}shared_gate", (1, dim))
        self.gate = load.one_expert(f"{at}shared.gate", (width, dim))
        self.up = load.one_expert(f"{at}shared.up", (width, dim))
        self.down = load.one_expert(f"{at}shared.down", (dim, width))

    def run(self, device: Device, x: Array) -> Array:
        routing = device.top_k(self.gate_logit.run(device, x), 1, "sigmoid", False)
        return device.moe(x, routing, self.gate, self.up, self.down, self.act)


class Block:
    """One layer: attention and a feed-forward part, each with an optional norm before and after, added to the stream.

    norms: the canonical names below the layer, of attn_norm, attn_post_norm, ffn_norm, ffn_post_norm.
    norm_plus: what the stored norm weights lack (1 where a file keeps w and the model uses 1 + w).
    """

    def __init__(
        self,
        load: Loader,
        spec: ModelSpec,
        layer: int,
        attention: Attention,
        ffn: DenseFfn | SubNormFfn | MoeFfn,
        *,
        norms: Sequence[str] = ("attn_norm", "ffn_norm"),
        norm_plus: float = 0.0,
    ) -> None:
        self.attention = attention
        self.ffn = ffn
        self.eps = spec.eps
        self.residual: float = spec.extra.get("residual_scale") or 1.0
        found = {name: load.vector(f"layers.{layer}.{name}", spec.dim, plus=norm_plus) for name in norms}
        self.attn_norm, self.attn_post = found.get("attn_norm"), found.get("attn_post_norm")
        self.ffn_norm, self.ffn_post = found.get("ffn_norm"), found.get("ffn_post_norm")

    def run(self, device: Device, x: Array, batch: Batch, farthest: int) -> Array:
        if self.attn_post is None and self.residual == 1.0:
            x = self.attention.run(device, x, self.attn_norm, batch, farthest, add=x)
        else:
            x = self._join(device, x, self.attention.run(device, x, self.attn_norm, batch, farthest), self.attn_post)
        if self.ffn_post is None and self.residual == 1.0:
            return self.ffn.run(device, x, self.ffn_norm, batch, add=x)
        return self._join(device, x, self.ffn.run(device, x, self.ffn_norm, batch), self.ffn_post)

    def _join(self, device: Device, x: Array, y: Array, norm: Array | None) -> Array:
        if norm is not None:
            y = device.rms_norm(y, norm, self.eps)
        if self.residual != 1.0:
            y = device.scale(y, self.residual)
        return device.add(x, y)


class Decoder:
    """Embedding, blocks, norm and head. An architecture is a subclass that says how to read settings and build a block.

    hf_names, gguf_names: departures from the tables of models/names.py. defaults: settings a file may leave out.
    """

    hf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {}
    gguf_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, spec: ModelSpec, load: Loader) -> None:
        self.spec = spec
        self.device = load.device
        self.stream = getattr(load, "stream", None)  # under a memory budget; then a step cannot be replayed blindly
        self.replays = self.stream is None
        self.table = load.weight("embed", (spec.vocab, spec.dim))
        self.layers = [self.block(load, spec, layer) for layer in range(spec.layers)]
        self.norm = load.vector("norm", spec.dim, plus=self.norm_plus(load))
        self.head_weight = self.table if spec.tied else load.weight("head", (spec.vocab, spec.dim))
        self.head_bias: Array | None = load.vector("head.bias", spec.vocab) if load.has("head.bias") else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(layers={self.spec.layers}, dim={self.spec.dim}, vocab={self.spec.vocab})"

    def block(self, load: Loader, spec: ModelSpec, layer: int) -> Block:
        """One layer of this architecture."""
        raise NotImplementedError

    def norm_plus(self, load: Loader) -> float:
        return 0.0

    def embed(self, batch: Batch) -> Array:
        x = self.device.embed(self.table, batch.ids)
        scale = self.spec.extra.get("embed_scale")
        return x if scale is None else self.device.scale(x, scale)

    def blocks(self, x: Array, batch: Batch, layers: Sequence[int]) -> Array:
        farthest = int(batch.positions.max(initial=0))
        for layer in layers:
            with NOTHING if self.stream is None else self.stream.turn(layer):
                x = self.layers[layer].run(self.device, x, batch, farthest)
            if batch.listen is not None:
                batch.listen(Tap.HIDDEN, layer, x)
        return x

    def states(self, x: Array) -> Array:
        return self.device.rms_norm(x, self.norm, self.spec.eps)

    def head(self, x: Array, batch: Batch) -> Array:
        if len(batch.outputs) != len(batch.ids):
            x = self.device.rows(x, batch.outputs)
        return self.logits(self.states(x))

    def logits(self, states: Array) -> Array:
        device, extra = self.device, self.spec.extra
        logits = device.linear(states, self.head_weight, self.head_bias)
        if extra.get("logit_scale") is not None:
            logits = device.scale(logits, extra["logit_scale"])
        if extra.get("logit_softcap") is not None:
            logits = device.softcap(logits, extra["logit_softcap"])
        return logits
