"""The slow truth: every verb in a few lines of numpy, against which the native device is measured.

Paper:  none     Exact: it defines what exact means.
Needs:  numpy                    Cost: one dense float32 copy of the weights; every token attends alone
Status: kept
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import erf, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Unsupported
from edgewise.kernels import formats
from edgewise.kernels.api import AttnSpec, DeviceInfo, Floats, Ints, Place, ReadAt, Routing, SeqRows


@dataclass(frozen=True)
class ReferenceWeight:
    """Decoded numbers (out, in), or (experts, out, in), and the format they came from."""

    values: Floats
    format: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


@dataclass(frozen=True)
class Pages:
    """Keys and values of one layer, (pages, page_tokens, kv_heads, head_dim) each, stored as `dtype`."""

    k: npt.NDArray[Any]
    v: npt.NDArray[Any]
    dtype: str  # "f32" | "f16" | "bf16" | "int8"
    # int8 only: (pages, page_tokens, kv_heads) float16, what a head's elements are multiplied with
    k_scale: npt.NDArray[np.float16] = field(default_factory=lambda: np.empty(0, np.float16))
    v_scale: npt.NDArray[np.float16] = field(default_factory=lambda: np.empty(0, np.float16))

    def stores(self) -> list[npt.NDArray[Any]]:
        return [store for store in (self.k, self.v, self.k_scale, self.v_scale) if store.size]


@dataclass(frozen=True)
class Plan:
    """For each sequence: its rows, and the page and slot of every token from the first cached to the last new one."""

    seqs: tuple[SeqRows, ...]
    pages: tuple[Ints, ...]  # (past + count,)
    slots: tuple[Ints, ...]
    copies: tuple[tuple[int, int, int], ...] = ()


def to_bf16(x: Floats) -> npt.NDArray[np.uint16]:
    """Rounds to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def to_int8(x: Floats) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """(..., n) → the values and (...) scales: max|x| / 127, rounded to half precision first; NaN where a value is not
    finite, or too large for half precision."""
    peak = np.abs(x).max(-1)
    good = np.isfinite(x).all(-1) & (peak < 8e6)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.where(good, (peak / np.float32(127)).astype(np.float16), np.float16(np.nan))
    back = scale.astype(np.float32)
    inverse = np.divide(np.float32(1), back, out=np.zeros_like(back), where=back > 0)
    scaled = np.where(good[..., None], x, 0) * inverse[..., None]
    return np.clip(np.rint(scaled), -127, 127).astype(np.int8), scale


def from_bf16(x: npt.NDArray[np.uint16]) -> Floats:
    widened: Floats = (x.astype(np.uint32) << 16).view(np.float32)
    return widened


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "silu": lambda x: x / (1 + np.exp(-np.maximum(x, -80))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x**3))),
    "gelu": lambda x: x * np.vectorize(lambda v: 0.5 * (1 + erf(v * 0.7071067811865476)), otypes=[np.float32])(x),
    "relu": lambda x: np.maximum(x, 0),
}


def _decode(shape: Sequence[int], fmt: str, data: memoryview | bytes | npt.NDArray[np.uint8]) -> Floats:
    """Stored bytes → float32 of `shape`, by the format's own slow twin."""
    spec = formats.find(fmt)
    if shape[-1] % spec.block:
        raise BadInput(f"{fmt} stores blocks of {spec.block} weights; rows of {shape[-1]} do not fit.")
    values: Floats = np.asarray(spec.widen(np.frombuffer(data, spec.layout)), np.float32)
    return values.reshape(shape)


def _softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(-1, keepdims=True))
    normalised: Floats = e / e.sum(-1, keepdims=True)
    return normalised


class NothingLeft:
    """The Filling of a device that reads at once."""

    def run(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def settle(self, nbytes: int) -> bool:
        return False


class ReferenceDevice:
    """Plain numpy in float32. `threads` is accepted for the sake of the other devices and changes nothing."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
        self.info = DeviceInfo("reference", "numpy", 1, 0)
        self.notes: list[str] = []  # what a user should know about this load

    def __repr__(self) -> str:
        return f"ReferenceDevice(threads={self.threads})"

    def upload(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        kind = np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32
        return np.array(values, kind, order="C")

    def download(self, x: Floats) -> Floats:
        return x

    def load(
        self, shape: Sequence[int], fmt: str, read: ReadAt, rows: Ints | None = None, place: Place | None = None, *,
        scales: Floats | None = None, into: str | None = None,
    ) -> ReferenceWeight:
        values = _decode(shape, fmt, read(0, formats.nbytes(fmt, prod(shape))))
        if scales is not None:
            values = values * np.repeat(scales, formats.SPAN, axis=1)[:, : shape[1]]
        if into is not None:
            values, fmt = _decode(shape, into, formats.quantize(into, values)), into
        return ReferenceWeight(np.array(values if rows is None else values[rows]), fmt)

    def filling(self) -> "NothingLeft":
        return NothingLeft()

    def experts(self, weights: Sequence[ReferenceWeight]) -> ReferenceWeight:
        return ReferenceWeight(np.stack([w.values for w in weights]), weights[0].format)

    def embed(self, table: ReferenceWeight, ids: Ints) -> Floats:
        return table.values[ids]

    def rows(self, x: Floats, index: Ints) -> Floats:
        return x[index]

    def peaks(self, x: Floats) -> list[int]:
        return [int(row.argmax()) if row.size and np.isfinite(row).all() else -1 for row in x]

    def linear(self, x: Floats, w: ReferenceWeight, bias: Floats | None = None, add: Floats | None = None) -> Floats:
        if w.format in ("BF16", *formats.FLOAT8):
            x = from_bf16(to_bf16(x))
        # One matrix-vector product a row: a matrix-matrix product would add in an order that depends on the row count.
        y: Floats = np.matmul(w.values, x[:, :, None])[:, :, 0]
        if bias is not None:
            y = y + bias
        return y if add is None else y + add

    def qkv(
        self, x: Floats, q: ReferenceWeight, k: ReferenceWeight, v: ReferenceWeight, *, q_bias: Floats | None = None,
        k_bias: Floats | None = None, v_bias: Floats | None = None, norm: Floats | None = None,
        q_norm: Floats | None = None, k_norm: Floats | None = None, eps: float = 0.0, positions: Ints | None = None,
        table: Floats | None = None, head_dim: int = 0,
    ) -> tuple[Floats, Floats, Floats]:
        if norm is not None:
            x = self.rms_norm(x, norm, eps)
        rows = [self.linear(x, q, q_bias), self.linear(x, k, k_bias), self.linear(x, v, v_bias)]
        for i, weight in enumerate((q_norm, k_norm)):
            if weight is not None:
                rows[i] = self.rms_norm(rows[i], weight, eps)
            if table is not None and positions is not None:
                rows[i] = self.rope(rows[i], positions, table, head_dim)
        return rows[0], rows[1], rows[2]

    def ffn(
        self, x: Floats, gate: ReferenceWeight, up: ReferenceWeight, down: ReferenceWeight, act: str, *,
        gate_bias: Floats | None = None, up_bias: Floats | None = None, down_bias: Floats | None = None,
        norm: Floats | None = None, eps: float = 0.0, add: Floats | None = None,
    ) -> Floats:
        if norm is not None:
            x = self.rms_norm(x, norm, eps)
        hidden = self.act_mul(self.linear(x, gate, gate_bias), self.linear(x, up, up_bias), act)
        return self.linear(hidden, down, down_bias, add)

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        runs = x.reshape(len(x), -1, len(weight))
        mean = np.mean(runs * runs, axis=-1, keepdims=True, dtype=np.float64)
        normalised: Floats = runs * (1 / np.sqrt(mean + eps)).astype(np.float32) * weight
        return normalised.reshape(x.shape)

    def add(self, x: Floats, y: Floats) -> Floats:
        return x + y

    def scale(self, x: Floats, factor: float) -> Floats:
        return x * np.float32(factor)

    def softcap(self, x: Floats, cap: float) -> Floats:
        capped: Floats = np.float32(cap) * np.tanh(x / np.float32(cap))
        return capped

    def act_mul(self, gate: Floats, up: Floats, kind: str) -> Floats:
        if kind not in ACTIVATIONS:
            raise Unsupported(f"There is no activation '{kind}'. Known: {', '.join(ACTIVATIONS)}.")
        return (ACTIVATIONS[kind](gate) * up).astype(np.float32)

    def rope(self, x: Floats, positions: Ints, table: Floats, head_dim: int) -> Floats:
        half = table.shape[2]
        cos, sin = table[:, positions, None, :]  # (tokens, 1, half)
        heads = x.reshape(len(x), -1, head_dim).copy()
        a, b = heads[..., :half].copy(), heads[..., half : 2 * half].copy()
        heads[..., :half] = a * cos - b * sin
        heads[..., half : 2 * half] = b * cos + a * sin
        return heads.reshape(x.shape)

    def top_k(self, logits: Floats, k: int, kind: str, renormalise: bool) -> Routing:
        if kind not in ("softmax", "topk_softmax", "sigmoid"):
            raise Unsupported(f"There is no routing '{kind}'. Known: softmax, topk_softmax, sigmoid.")
        ids = np.argsort(-logits, axis=-1, kind="stable")[:, :k]  # stable: equal logits go to the lowest id
        best: Floats = np.take_along_axis(logits, ids, -1)
        if kind == "sigmoid":
            weights = (1 / (1 + np.exp(-best.astype(np.float64)))).astype(np.float32)
        else:
            weights = np.take_along_axis(_softmax(logits), ids, -1) if kind == "softmax" else _softmax(best)
        if renormalise:
            weights = weights / weights.sum(-1, keepdims=True)
        return Routing(ids.astype(np.int32), weights.astype(np.float32))

    def moe(
        self, x: Floats, routing: Routing, gate: ReferenceWeight, up: ReferenceWeight, down: ReferenceWeight, act: str
    ) -> Floats:
        y = np.zeros((len(x), down.shape[1]), np.float32)
        for token in range(len(x)):
            row = x[token : token + 1]
            for expert, weight in zip(routing.ids[token], routing.weights[token], strict=True):
                g, u, d = (ReferenceWeight(w.values[expert], w.format) for w in (gate, up, down))
                y[token] += weight * self.linear(self.act_mul(self.linear(row, g), self.linear(row, u), act), d)[0]
        return y

    def alloc_pages(self, pages: int, page_tokens: int, kv_heads: int, head_dim: int, dtype: str) -> Pages:
        types: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "int8": np.int8}
        if dtype not in types:
            raise Unsupported(f"There is no cache type '{dtype}'. Known: {', '.join(types)}.")
        shape = (pages, page_tokens, kv_heads, head_dim)
        pool = Pages(np.zeros(shape, types[dtype]), np.zeros(shape, types[dtype]), dtype)
        if dtype != "int8":
            return pool
        return replace(pool, k_scale=np.zeros(shape[:3], np.float16), v_scale=np.zeros(shape[:3], np.float16))

    def copy_page(self, pool: Pages, src: int, dst: int) -> None:
        for store in pool.stores():
            store[dst] = store[src]

    def save_pages(self, pool: Pages, pages: Ints) -> npt.NDArray[np.uint8]:
        return np.concatenate([store[pages].reshape(-1).view(np.uint8) for store in pool.stores()])

    def load_pages(self, pool: Pages, pages: Ints, data: npt.NDArray[np.uint8]) -> None:
        sizes = [store[:1].nbytes * len(pages) for store in pool.stores()]
        if len(data) != sum(sizes):
            raise BadInput(f"load_pages: {len(data)} bytes, but {len(pages)} pages of this pool take {sum(sizes)}.")
        for store, part in zip(pool.stores(), np.split(data, np.cumsum(sizes)[:-1]), strict=True):
            store[pages] = part.view(store.dtype).reshape(len(pages), *store.shape[1:])

    def attn_plan(
        self, seqs: Sequence[SeqRows], tables: Sequence[Ints], page_tokens: int,
        copies: Sequence[tuple[int, int, int]] = (),
    ) -> Plan:
        pages, slots = [], []
        for seq, table in zip(seqs, tables, strict=True):
            tokens = np.arange(seq.past + seq.count, dtype=np.int32)
            pages.append(np.asarray(table, np.int32)[tokens // page_tokens])
            slots.append(tokens % page_tokens)
        rows = sum(seq.count for seq in seqs)
        for row, page, slot in copies:
            if not (0 <= row < rows and page >= 0 and 0 <= slot < page_tokens):
                raise BadInput("attn_plan: a copy names no row, page or slot.")
        return Plan(tuple(seqs), tuple(pages), tuple(slots), tuple(copies))

    def append(self, pool: Pages, k: Floats, v: Floats, plan: Plan) -> None:
        for seq, pages, slots in zip(plan.seqs, plan.pages, plan.slots, strict=True):
            at = pages[seq.past :], slots[seq.past :]
            for store, scale, new in ((pool.k, pool.k_scale, k), (pool.v, pool.v_scale, v)):
                rows = new[seq.start : seq.start + seq.count].reshape(seq.count, *store.shape[2:])
                if pool.dtype == "int8":
                    store[at], scale[at] = to_int8(rows)
                else:
                    store[at] = to_bf16(rows) if pool.dtype == "bf16" else rows
        for row, page, slot in plan.copies:
            which = next(i for i, seq in enumerate(plan.seqs) if seq.start <= row < seq.start + seq.count)
            position = plan.seqs[which].past + row - plan.seqs[which].start
            for store in pool.stores():
                store[page, slot] = store[plan.pages[which][position], plan.slots[which][position]]

    def record(self, ids: Ints, positions: Ints, outputs: Ints, plan: Plan) -> None:
        return None  # verb by verb, always

    def attention(self, spec: AttnSpec, q: Floats, pool: Pages, plan: Plan) -> Floats:
        out = np.zeros((len(q), spec.heads * spec.head_dim), np.float32)
        for seq, pages, slots in zip(plan.seqs, plan.pages, plan.slots, strict=True):
            k, v = (  # (kv_heads, past + count, head_dim)
                _widened(pool, store[pages, slots], scale, (pages, slots)).transpose(1, 0, 2)
                for store, scale in ((pool.k, pool.k_scale), (pool.v, pool.v_scale))
            )
            for i in range(seq.count):
                end = seq.past + i + 1
                begin = max(0, end - spec.window) if spec.window else 0
                row = q[seq.start + i].reshape(spec.kv_heads, -1, spec.head_dim)  # (kv_heads, group, head_dim)
                scores = row @ k[:, begin:end].transpose(0, 2, 1) * np.float32(spec.scale)
                if spec.softcap:
                    scores = self.softcap(scores, spec.softcap)
                out[seq.start + i] = (_softmax(scores) @ v[:, begin:end]).reshape(-1)
        return out


def _widened(pool: Pages, stored: npt.NDArray[Any], scale: npt.NDArray[np.float16], at: tuple[Ints, Ints]) -> Floats:
    """(tokens, kv_heads, head_dim) as numbers."""
    if pool.dtype == "bf16":
        return from_bf16(stored)
    wide: Floats = stored.astype(np.float32)
    return wide * scale[at].astype(np.float32)[..., None] if pool.dtype == "int8" else wide
