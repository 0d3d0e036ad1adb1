"""Norm, activations, rope, attention, routing and experts: close to float64, and the same bits however they are cut."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.kernels.api import AttnSpec, Routing, SeqRows  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()


def devices() -> list[CpuDevice]:
    found = []
    before = os.environ.get("EDGEWISE_ISA", "")
    for isa in ISAS:
        for threads in (1, 3):
            os.environ["EDGEWISE_ISA"] = isa
            found.append(CpuDevice(threads))
    os.environ["EDGEWISE_ISA"] = before
    return found


DEVICES = devices()


def everywhere(run: Callable[[CpuDevice], Any]) -> np.ndarray:
    """The result of run(device), which must be the same bits on every table and thread count."""
    results = [np.array(run(dev)) for dev in DEVICES]
    for dev, other in zip(DEVICES[1:], results[1:], strict=True):
        np.testing.assert_array_equal(other, results[0], err_msg=repr(dev) + dev.isa)
    return results[0]


def close(got: np.ndarray, want: np.ndarray, rtol: float = 1e-6, atol: float = 1e-30) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


@pytest.mark.parametrize(("rows", "cols", "run"), [(1, 1, 1), (3, 64, 64), (5, 130, 130), (7, 96, 24), (70, 999, 999)])
def test_rms_norm(rows: int, cols: int, run: int) -> None:
    x, w = normal(1, rows, cols, scale=3), normal(2, run)
    got = everywhere(lambda d: d.rms_norm(d.upload(x), d.upload(w), 1e-5))
    close(got, twins.rms_norm64(x, w, 1e-5))
    for d in DEVICES[:2]:  # a row alone is the row in a batch
        np.testing.assert_array_equal(d.download(d.rms_norm(d.upload(x[-1:]), d.upload(w), 1e-5)), got[-1:])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 5003])
def test_elementwise(n: int) -> None:
    x, y = normal(3, 2, n, scale=4), normal(4, 2, n)
    np.testing.assert_array_equal(everywhere(lambda d: d.add(d.upload(x), d.upload(y))), x + y)
    np.testing.assert_array_equal(everywhere(lambda d: d.scale(d.upload(x), 0.37)), x * np.float32(0.37))
    x20 = (x * np.float32(20)).astype(np.float64)
    close(everywhere(lambda d: d.softcap(d.upload(x * 20), 30.0)), 30 * np.tanh(x20 / 30))
    with np.errstate(over="ignore"):
        for kind, f in twins.ACTS.items():
            # beyond 1e-7 of |x| the true value of gelu is lost in any float32 formula with 1 + erf
            want = f(x.astype(np.float64)) * y
            close(everywhere(lambda d, kind=kind: d.act_mul(d.upload(x), d.upload(y), kind)), want, 2e-6, 3e-7)


def test_exp_and_tanh_far_out() -> None:
    values = [-1e30, -200, -89, -88, -87.4, -1e-30, 0, 1e-30, 1e-3, 0.69, 0.71, 20, 88, 200, 1e30, np.nan]
    edge = np.array([values], np.float32)
    one = np.ones_like(edge)
    with np.errstate(over="ignore"):
        want = twins.ACTS["silu"](edge.astype(np.float64))
    close(everywhere(lambda d: d.act_mul(d.upload(edge), d.upload(one), "silu")), want, 1e-6, 1e-30)
    close(everywhere(lambda d: d.softcap(d.upload(edge), 1.0)), np.tanh(edge.astype(np.float64)), 3e-7)


@pytest.mark.parametrize(("heads", "dim", "half"), [(1, 2, 1), (3, 64, 32), (2, 80, 20), (5, 10, 5)])
def test_rope(heads: int, dim: int, half: int) -> None:
    x = normal(5, 4, heads * dim)
    positions = np.array([0, 9, 3, 3], np.int32)
    angle = np.arange(10)[:, None] * np.linspace(1, 0.01, half)
    table = np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    got = everywhere(lambda d: d.rope(d.upload(x), positions, d.upload(table), dim))
    h = x.reshape(4, heads, dim).astype(np.float64)
    c, s = (t[positions][:, None].astype(np.float64) for t in table)
    a, b = h[..., :half], h[..., half : 2 * half]
    want = np.concatenate([a * c - b * s, b * c + a * s, h[..., 2 * half :]], -1).reshape(x.shape)
    close(got, want, 1e-5, 1e-6)


def run_attention(
    d: CpuDevice, q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, kv: int, dim: int, cuts: list[int],
    page_tokens: int = 16, dtype: str = "f32", window: int | None = None, softcap: float | None = None, seed: int = 0,
) -> np.ndarray:
    """The rows of one sequence, appended and attended in pieces; pages shuffled and poisoned beforehand."""
    rows = len(q)
    need = -(-rows // page_tokens)
    table = np.random.default_rng(seed).permutation(need + 3)[:need].astype(np.int32)
    pool = d.alloc_pages(need + 3, page_tokens, kv, dim, dtype)
    poison = d.upload(np.full(((need + 3) * page_tokens, kv * dim), np.nan, np.float32))
    everything = np.arange(need + 3, dtype=np.int32)
    d.append(pool, poison, poison, d.attn_plan([SeqRows(0, 0, (need + 3) * page_tokens, 0)], [everything], page_tokens))
    spec = AttnSpec(0, heads, kv, dim, dim**-0.5, window, softcap)
    out, past = [], 0
    for cut in [*cuts, rows]:
        if cut <= past:
            continue
        plan = d.attn_plan([SeqRows(0, 0, cut - past, past)], [table], page_tokens)
        d.append(pool, d.upload(k[past:cut]), d.upload(v[past:cut]), plan)
        out.append(np.array(d.attention(spec, d.upload(q[past:cut]), pool, plan)))
        past = cut
    return np.concatenate(out)


@pytest.mark.parametrize(("heads", "kv", "dim"), [(1, 1, 2), (4, 2, 64), (6, 2, 18), (7, 1, 80), (70, 1, 16)])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (21, None), (None, 5.0)])
def test_attention(heads: int, kv: int, dim: int, window: int | None, softcap: float | None) -> None:
    rows = 150
    q, k, v = normal(6, rows, heads * dim, scale=2), normal(7, rows, kv * dim), normal(8, rows, kv * dim)
    args = (q, k, v, heads, kv, dim)
    whole = everywhere(lambda d: run_attention(d, *args, [], window=window, softcap=softcap))
    want = twins.attention64(q.reshape(rows, heads, dim), k.reshape(rows, kv, dim), v.reshape(rows, kv, dim), 0,
                             dim**-0.5, window, softcap)
    close(whole, want, 1e-5, 2e-6)
    for d in DEVICES[-2:]:
        for cuts, page in (([1, 2, 3, 64, 65, 100], 16), (list(range(1, rows)), 48), ([149], 160)):
            piecewise = run_attention(d, *args, cuts, page, window=window, softcap=softcap, seed=page)
            np.testing.assert_array_equal(piecewise, whole)


@pytest.mark.parametrize(("heads", "kv", "window"), [(3, 1, None), (7, 1, None), (2, 2, 600)])
def test_long_attention_is_split_by_position(heads: int, kv: int, window: int | None) -> None:
    """Past 512 keys a row is computed in splits: one thread for many rows, several for few, the same bits."""
    rows, dim = 1100, 16
    q, k, v = normal(6, rows, heads * dim, scale=2), normal(7, rows, kv * dim), normal(8, rows, kv * dim)
    k[900] *= 40  # a late peak, so that earlier splits shrink
    args = (q, k, v, heads, kv, dim)
    whole = run_attention(DEVICES[-2], *args, [], window=window)  # one thread
    want = twins.attention64(q.reshape(rows, heads, dim), k.reshape(rows, kv, dim), v.reshape(rows, kv, dim), 0,
                             dim**-0.5, window, None)
    close(whole, want, 2e-5, 4e-6)
    tail = everywhere(lambda d: run_attention(d, *args, [1023, 1024, 1025, 1098, 1099], 32, window=window)[1000:])
    np.testing.assert_array_equal(tail, whole[1000:])


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_attention_narrow_pages(dtype: str) -> None:
    q, k, v = normal(9, 40, 4 * 32), normal(10, 40, 2 * 32), normal(11, 40, 2 * 32)

    def round_to(x: np.ndarray) -> np.ndarray:
        if dtype == "f16":
            return x.astype(np.float16).astype(np.float32)
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)

    got = everywhere(lambda d: run_attention(d, q, k, v, 4, 2, 32, [7, 8], dtype=dtype))
    np.testing.assert_array_equal(got, run_attention(DEVICES[-1], q, round_to(k), round_to(v), 4, 2, 32, []))


def test_ragged_batch_equals_sequences_alone() -> None:
    d, heads, kv, dim, page = DEVICES[-1], 4, 2, 32, 16
    pool = d.alloc_pages(20, page, kv, dim, "f32")
    spec = AttnSpec(0, heads, kv, dim, 0.2)
    tables = [np.array([3, 9, 1], np.int32), np.array([0, 2], np.int32), np.array([7], np.int32)]
    pasts, counts = [33, 5, 0], [1, 20, 3]
    lone = []
    for i in range(3):
        old = normal(20 + i, pasts[i], kv * dim)
        if pasts[i]:
            d.append(pool, d.upload(old), d.upload(-old), d.attn_plan([SeqRows(0, 0, pasts[i], 0)], [tables[i]], page))
        new, q = normal(30 + i, counts[i], kv * dim), normal(40 + i, counts[i], heads * dim)
        plan = d.attn_plan([SeqRows(0, 0, counts[i], pasts[i])], [tables[i]], page)
        d.append(pool, d.upload(new), d.upload(new), plan)
        lone.append((q, np.array(d.attention(spec, d.upload(q), pool, plan))))
    starts = [3, 4, 0]  # rows in another order than the sequences
    q = np.empty((24, heads * dim), np.float32)
    for i in range(3):
        q[starts[i] : starts[i] + counts[i]] = lone[i][0]
    seqs = [SeqRows(i, starts[i], counts[i], pasts[i]) for i in range(3)]
    together = np.array(d.attention(spec, d.upload(q), pool, d.attn_plan(seqs, tables, page)))
    for i in range(3):
        np.testing.assert_array_equal(together[starts[i] : starts[i] + counts[i]], lone[i][1])
    d.copy_page(pool, 7, 11)
    plan = d.attn_plan([SeqRows(2, 0, 3, 0)], [np.array([11], np.int32)], page)
    moved = d.attention(spec, d.upload(lone[2][0]), pool, plan)
    np.testing.assert_array_equal(d.download(moved), lone[2][1])


def test_attention_refuses_bad_plans() -> None:
    d = DEVICES[0]
    pool = d.alloc_pages(2, 16, 1, 16, "f32")
    with pytest.raises(ValueError, match="needs room for 17"):
        d.attn_plan([SeqRows(0, 0, 1, 16)], [np.array([0], np.int32)], 16)
    with pytest.raises(ValueError, match="share a row"):
        d.attn_plan([SeqRows(0, 0, 1, 0), SeqRows(1, 0, 1, 0)], [np.array([0], np.int32)] * 2, 16)
    plan = d.attn_plan([SeqRows(0, 0, 1, 0)], [np.array([2], np.int32)], 16)
    x = d.upload(np.zeros((1, 16), np.float32))
    with pytest.raises(ValueError, match="page 2 is outside"):
        d.append(pool, x, x, plan)


@pytest.mark.parametrize("kind", ["softmax", "topk_softmax"])
@pytest.mark.parametrize("renormalise", [False, True])
def test_top_k(kind: str, renormalise: bool) -> None:
    x = normal(12, 9, 19)
    x[4] = 0  # all tie: lowest ids
    x[5, 3] = x[5, 11] = 7
    for d in DEVICES:
        got = d.top_k(d.upload(x), 4, kind, renormalise)
        ids = np.argsort(-x, axis=1, kind="stable")[:, :4]
        np.testing.assert_array_equal(got.ids, ids)
        chosen = np.take_along_axis(x.astype(np.float64), ids, 1)
        e = np.exp(chosen - chosen.max(1, keepdims=True))
        if kind == "softmax" and not renormalise:
            whole = np.exp(x.astype(np.float64) - chosen.max(1, keepdims=True)).sum(1, keepdims=True)
        else:
            whole = e.sum(1, keepdims=True)
        close(got.weights, e / whole, 1e-6)


@pytest.mark.parametrize("fmt", ["F32", "Q4_0", "Q8_0", "Q4_K"])
def test_moe_equals_its_parts(fmt: str) -> None:
    rng = np.random.default_rng(13)
    experts, dim, ffn, tokens, k = 5, 256, 512, 23, 2

    def load(d: CpuDevice, rows: int, cols: int, seed: int) -> Any:
        r = np.random.default_rng(seed)
        plain = (r.normal(size=(rows, cols)) * 0.1).astype(np.float32)
        stored = plain if fmt == "F32" else twins.random_blocks(fmt, rows, cols, r)
        flat = stored.reshape(-1).view(np.uint8)
        return d.load((rows, cols), fmt, lambda offset, nbytes: flat[offset : offset + nbytes])

    x = normal(14, tokens, dim)
    ids = np.array([rng.permutation(experts)[:k] for _ in range(tokens)], np.int32)
    ids[ids == 3] = 1  # nobody asks for expert 3; some ask twice for expert 1
    routing = Routing(ids, rng.random((tokens, k)).astype(np.float32))

    def run(d: CpuDevice) -> np.ndarray:
        shapes = [(ffn, dim), (ffn, dim), (dim, ffn)]
        gates, ups, downs = ([load(d, *s, 100 * i + e) for e in range(experts)] for i, s in enumerate(shapes))
        whole = np.array(d.moe(d.upload(x), routing, d.experts(gates), d.experts(ups), d.experts(downs), "silu"))
        for t in range(tokens):
            row, y = d.upload(x[t : t + 1]), np.zeros((1, dim), np.float32)
            for j in range(k):
                e = ids[t, j]
                part = d.linear(d.act_mul(d.linear(row, gates[e]), d.linear(row, ups[e]), "silu"), downs[e])
                y = twins.fma32(routing.weights[t, j], np.asarray(part), y)
            np.testing.assert_array_equal(whole[t : t + 1], y)
        return whole

    everywhere(run)


def test_arrays_and_rows() -> None:
    d = DEVICES[-1]
    x = normal(15, 6, 7)
    b = d.upload(x)
    assert b.shape == (6, 7)
    assert len(b) == 6
    np.testing.assert_array_equal(d.download(d.rows(b, np.array([5, 0, 0], np.int32))), x[[5, 0, 0]])
    view = d.download(b)
    del b  # the view keeps its buffer
    np.testing.assert_array_equal(view, x)
    np.testing.assert_array_equal(np.asarray(d.upload(np.arange(4, dtype=np.int32))), np.arange(4))
    with pytest.raises(ValueError, match="index 6"):
        d.rows(d.upload(x), np.array([6], np.int32))
