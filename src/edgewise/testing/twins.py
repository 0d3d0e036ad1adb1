"""Slow numpy twins of the native kernels. The quantised matmul is emulated bit for bit; the rest in float64.

`fma32` rounds once: the product of two floats is exact in float64, and the sum is rounded to odd before it is rounded
to float32 (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.kernels import formats

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

GROUP = 32
BLOCKS = {"Q4_0": (32, 18), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q6_K": (256, 210)}


def fma32(a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32 with one rounding; arrays or scalars of float32."""
    p, c64 = np.broadcast_arrays(np.float64(a) * np.float64(b), np.float64(c))
    s = p + c64
    v = s - p
    error = (p - (s - v)) + (c64 - v)
    bits = np.atleast_1d(s).view(np.int64).copy()
    e, t = np.atleast_1d(error), np.atleast_1d(s)
    inexact = (bits & 1 == 0) & (e != 0) & np.isfinite(e)
    bits += np.where(inexact, np.where((e > 0) == (t > 0), 1, -1), 0)
    return bits.view(np.float64).astype(np.float32).reshape(np.shape(s))


def random_blocks(fmt: str, rows: int, cols: int, rng: np.random.Generator) -> U8:
    """Random stored rows (rows, row bytes) with sane scales: every quant value occurs, no NaN."""
    block, size = BLOCKS[fmt]
    n = rows * (cols // block)
    out = rng.integers(0, 256, (n, size), dtype=np.uint8)

    def halves(count: int) -> U8:
        return (rng.normal(size=(n, count)) * 0.02).astype(np.float16).view(np.uint8)

    if fmt in ("Q4_0", "Q8_0"):
        out[:, :2] = halves(1)
    elif fmt == "Q4_K":
        out[:, :4] = halves(2)
    else:
        out[:, 208:] = halves(1)
    return out.reshape(rows, -1)


def parts(fmt: str, stored: U8, cols: int) -> dict[str, Any]:
    """The integers and scales of stored rows: q (rows, cols) int64, scales as float32 per group of 32 or 16."""
    block, size = BLOCKS[fmt]
    rows = len(stored)
    b = stored.reshape(rows, cols // block, size)

    def half(at: int) -> F32:
        return np.ascontiguousarray(b[..., at : at + 2]).view(np.float16)[..., 0].astype(np.float32)

    if fmt == "Q4_0":
        low, high = b[..., 2:] & 15, b[..., 2:] >> 4
        q = np.concatenate([low, high], -1).astype(np.int64) - 8
        return {"q": q.reshape(rows, cols), "d": half(0)}
    if fmt == "Q8_0":
        return {"q": b[..., 2:].view(np.int8).astype(np.int64).reshape(rows, cols), "d": half(0)}
    if fmt == "Q4_K":
        s = b[..., 4:16].astype(np.int64)
        scale = np.concatenate([s[..., :4] & 63, (s[..., 8:] & 15) | (s[..., :4] >> 6 << 4)], -1)
        least = np.concatenate([s[..., 4:8] & 63, (s[..., 8:] >> 4) | (s[..., 4:8] >> 6 << 4)], -1)
        pairs = b[..., 16:].reshape(rows, -1, 4, 32)
        q = np.stack([pairs & 15, pairs >> 4], -2).astype(np.int64)
        return {"q": q.reshape(rows, cols), "d": half(0), "dmin": half(2), "s": scale.reshape(rows, -1),
                "m": least.reshape(rows, -1)}
    bottom, top = b[..., :128].reshape(rows, -1, 2, 64), b[..., 128:192].reshape(rows, -1, 2, 32)
    first, second = bottom[..., :32], bottom[..., 32:]
    four: Any = np.stack([first & 15, second & 15, first >> 4, second >> 4], -2)
    two: Any = np.stack([top >> i & 3 for i in (0, 2, 4, 6)], -2)
    q6 = (four | (two << 4)).astype(np.int64) - 32
    scale = b[..., 192:208].view(np.int8).astype(np.int64)
    return {"q": q6.reshape(rows, cols), "d": half(208), "s": scale.reshape(rows, -1)}


def dequantise(fmt: str, stored: U8, cols: int) -> Any:
    """The float32 weights that the stored rows stand for (rows, cols)."""
    p = parts(fmt, stored, cols)
    q, rows = p["q"].astype(np.float32), len(stored)
    if fmt in ("Q4_0", "Q8_0"):
        return (q.reshape(rows, -1, 32) * p["d"][..., None]).reshape(rows, cols)
    if fmt == "Q4_K":
        d = np.repeat(p["d"], 8, 1) * p["s"].astype(np.float32)
        m = np.repeat(p["dmin"], 8, 1) * p["m"].astype(np.float32)
        return (q.reshape(rows, -1, 32) * d[..., None] - m[..., None]).reshape(rows, cols)
    d = (np.repeat(p["d"], 16, 1) * p["s"].astype(np.float32))[..., None]
    return (q.reshape(rows, -1, 16) * d).reshape(rows, cols)


def quantise_activations(x: F32, group: int, step: int = 0) -> tuple[npt.NDArray[np.int64], F32]:
    """Int8 values (n, cols) and scales (n, cols / group), as the kernels make them.

    step: 0 lets values reach 127; 8 or 16 lets the sizes of two values `step` apart, in runs of twice as many, sum to
    85 at most.
    """
    g = x.reshape(len(x), -1, group)
    most = np.float32(84 if step else 127)
    if step:
        pairs = np.abs(g).reshape(*g.shape[:2], -1, 2, step)
        peak = (pairs[..., 0, :] + pairs[..., 1, :]).max((-1, -2))
    else:
        peak = np.abs(g).max(-1)
    scale = (peak / most).astype(np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(peak > np.float32(1e-30), most / peak, np.float32(0)).astype(np.float32)
    return np.rint(g * inverse[..., None]).astype(np.int64).reshape(x.shape), scale


def matmul_quantised(fmt: str, stored: U8, x: F32) -> Any:
    """x @ w.T exactly as the kernels compute it: int32 per block of weights, then fused multiply-adds, in order."""
    n, cols = x.shape
    p = parts(fmt, stored, cols)
    block = BLOCKS[fmt][0]
    if fmt == "Q4_0":
        return _matmul_spans(p["q"], p["d"], x)
    xq, xs = quantise_activations(x, block)
    acc = np.zeros((n, len(stored)), np.float32)
    for b in range(cols // block):
        w, v = p["q"][:, b * block : (b + 1) * block], xq[:, b * block : (b + 1) * block]
        if fmt in ("Q4_K", "Q6_K"):
            inner = 32 if fmt == "Q4_K" else 16
            count = block // inner
            w = w * np.repeat(p["s"][:, b * count : (b + 1) * count], inner, 1)
        if fmt == "Q4_K":
            lows = v.reshape(n, 8, 32).sum(-1) @ p["m"][:, 8 * b : 8 * b + 8].T
            acc = fma32(-lows.astype(np.float32), p["dmin"][:, b][None] * xs[:, b, None], acc)
        acc = fma32((v @ w.T).astype(np.float32), p["d"][:, b][None] * xs[:, b, None], acc)
    return acc


def random_own_blocks(fmt: str, rows: int, cols: int, rng: np.random.Generator) -> U8:
    """Stored rows of one of our own formats in which every code occurs, with sane steps."""
    spec: Any = formats.find(fmt)
    raw = rng.integers(0, 256, (rows * cols // spec.block, spec.layout.itemsize), dtype=np.uint8)
    b = raw.reshape(-1).view(spec.layout)
    b["d"] = rng.normal(size=len(b)) * 0.02
    if spec.affine:
        b["m"] = rng.normal(size=len(b)) * 0.02
    return raw.reshape(rows, -1)


def pair_step(bits: int) -> int:
    """How far apart the weights are whose codes share a byte's half or, at 4 bits, a byte: what lookup tables pair."""
    return {8: 0, 4: 16}.get(bits, 8)


def lookup_sums(codes: npt.NDArray[np.int64], values: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """codes (rows, 32) times values (32) as table lookup computes it: entries of tables are bytes, indices have 4 bits.

    Codes are unsigned. A table of pairs serves two codes' low or high two bits, a table of quads four single bits.
    Raises ValueError when an entry does not fit a byte.
    """
    entry = np.arange(16)
    total = np.zeros(len(codes), np.int64)

    def look(places: list[int], weights: npt.NDArray[np.int64], part: npt.NDArray[np.int64], width: int) -> None:
        sums: npt.NDArray[np.int64] = weights.T @ values[places]
        table = sums - sums.min()
        if table.max() > 255:
            raise ValueError(f"An entry of {table.max()} does not fit a byte.")
        index = sum(part[:, k] << (width * i) for i, k in enumerate(places))
        total[:] += (table[index] + sums.min()) << shift

    two = np.stack([entry & 3, entry >> 2])
    one = np.stack([entry >> i & 1 for i in range(4)])
    step = pair_step(bits)
    if bits > 1:
        for shift in (0, 2) if bits == 4 else (0,):
            for k in range(32):
                if k // step % 2 == 0:
                    look([k, k + step], two, codes >> shift & 3, 2)
    if bits % 2:
        shift = bits - 1
        for k in (*range(4), *range(16, 20)):
            look([k, k + 4, k + 8, k + 12], one, codes >> shift & 1, 1)
    return total


def quantise_spans(x: F32) -> tuple[npt.NDArray[np.int64], Any, Any]:
    """Of spans of 128 columns, the last one perhaps shorter: int8 values (n, cols), how far each group's sums are
    shifted (n, cols / 32), and scales (n, spans). A group's values are multiplied by a power of two, 2^15 at most,
    where its largest one leaves room; scales are made for values that all were by 2^15."""
    n, cols = x.shape
    peaks = np.abs(x.reshape(n, -1, 32)).max(-1)
    starts = np.arange(0, cols // 32, 4)
    peak = np.maximum.reduceat(peaks, starts, 1)
    scales = (peak / np.float32(127) * np.float32(2.0**-15)).astype(np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(peak > np.float32(1e-30), np.float32(127) / peak, np.float32(0)).astype(np.float32)
    span = np.arange(cols // 32) // 4
    doublings = (peak.view(np.int32)[:, span] - np.ascontiguousarray(peaks).view(np.int32)) >> 23
    finer = np.clip(doublings, 0, 15)
    times = (inverse[:, span] * np.exp2(finer)).astype(np.float32)
    values = np.rint(x.reshape(n, -1, 32) * times[..., None]).astype(np.int64).reshape(n, cols)
    return values, 15 - finer, scales


def _matmul_spans(q: Any, d: Any, x: F32) -> Any:
    """A fused multiply-add for each group with the weights' scale, one for the span with the activations'."""
    xq, shifts, scales = quantise_spans(x)
    acc = np.zeros((len(x), len(q)), np.float32)
    for span in range(scales.shape[1]):
        inner = np.zeros_like(acc)
        for g in range(4 * span, min(4 * span + 4, shifts.shape[1])):
            sums = xq[:, 32 * g : 32 * g + 32] @ q[:, 32 * g : 32 * g + 32].T << shifts[:, g, None]
            inner = fma32(sums.astype(np.float32), d[:, g][None], inner)
        acc = fma32(inner, scales[:, span, None], acc)
    return acc


def matmul_own(fmt: str, stored: U8, x: F32, lookup: bool = False) -> F32:
    """x @ w.T for our own formats: int32 per group, one fused multiply-add, one more for the offset if any.

    lookup: int4 with activations that tables can hold; narrower formats always have such."""
    spec: Any = formats.find(fmt)
    n, cols = x.shape
    rows, groups = len(stored), cols // spec.block
    b = stored.reshape(-1).view(spec.layout)
    zero = {1: 0.5, 2: 1, 4: 8, 8: 128}.get(spec.bits, 0) if not spec.affine else 0
    times = 2 if spec.bits == 1 else 1  # int1 counts in halves
    q = (times * (spec.codes(b) - zero)).astype(np.int64).reshape(rows, groups, spec.block)
    d = b["d"].astype(np.float32).reshape(rows, groups)
    xq, xs = quantise_activations(x, spec.block, pair_step(spec.bits) if lookup or spec.bits < 4 else 0)
    acc = np.zeros((n, rows), np.float32)
    for g in range(groups):
        v = xq[:, g * spec.block : (g + 1) * spec.block]
        acc = fma32((v @ q[:, g].T).astype(np.float32), d[:, g][None] * xs[:, g, None], acc)
        if spec.affine:
            m = b["m"].astype(np.float32).reshape(rows, groups)[:, g]
            acc = fma32(m[None], (xs[:, g] * v.sum(-1).astype(np.float32))[:, None], acc)
    return acc


def chain32(w: F32, x: F32) -> Any:
    """x @ w.T as the kernels of F32 and F16 compute it: one chain of fused multiply-adds in order of k."""
    acc = np.zeros((len(x), len(w)), np.float32)
    for k in range(x.shape[1]):
        acc = fma32(w[:, k][None], x[:, k][:, None], acc)
    return acc


def brain_chain32(w: F32, x: F32) -> Any:
    """x @ w.T as the BF16 kernels compute it, for w that BF16 holds exactly: x rounded to BF16, pairs of k with the odd
    one first, subnormal operands and results taken as zero (what VDPBF16PS is published to do)."""
    w, x = (_flushed(np.pad(a, ((0, 0), (0, a.shape[1] % 2)))) for a in (w, round_bf16(x)))
    acc = np.zeros((len(x), len(w)), np.float32)
    for k in range(0, x.shape[1], 2):
        for i in (k + 1, k):
            acc = _flushed(fma32(w[:, i][None], x[:, i][:, None], acc))
    return acc


def float8_chain32(w: F32, scales: F32, x: F32) -> Any:
    """x @ (w * scales).T as the kernels of 8-bit floats compute it: every span's own sum, then one fused
    multiply-add with the span's scale. w (rows, cols) without scales; scales (rows, spans)."""
    span = formats.SPAN
    acc = np.zeros((len(x), len(w)), np.float32)
    for s in range(scales.shape[1]):
        part = brain_chain32(w[:, s * span : (s + 1) * span], x[:, s * span : (s + 1) * span])
        acc = _flushed(fma32(part, scales[:, s][None], acc))
    return acc


def round_bf16(x: F32) -> Any:
    """To the nearest BF16, ties to even, as float32; finite numbers."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _flushed(x: F32) -> Any:
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def rms_norm64(x: F32, weight: F32, eps: float) -> Any:
    runs = x.astype(np.float64).reshape(len(x), -1, len(weight))
    return (runs / np.sqrt((runs**2).mean(-1, keepdims=True) + eps) * weight).reshape(x.shape)


def _erf(x: F64) -> Any:
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x)


ACTS: dict[str, Callable[[F64], F64]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
}


def attention64(
    q: F32, k: F32, v: F32, past: int, scale: float, window: int | None = None, softcap: float | None = None
) -> F64:
    """One sequence. q (rows, heads, dim), k and v (past + rows, kv_heads, dim) → (rows, heads * dim)."""
    rows, heads, dim = q.shape
    share = heads // k.shape[1]
    out = np.zeros((rows, heads, dim))
    for r in range(rows):
        end = past + r + 1
        start = 0 if window is None else max(0, end - window)
        for h in range(heads):
            s = k[start:end, h // share].astype(np.float64) @ q[r, h].astype(np.float64) * scale
            if softcap is not None:
                s = softcap * np.tanh(s / softcap)
            p = np.exp(s - s.max())
            out[r, h] = (p / p.sum()) @ v[start:end, h // share].astype(np.float64)
    return out.reshape(rows, heads * dim)
