"""What every device must do. Subclass DeviceContract, give `make`, and the verbs are compared with plain float64 sums.

Two kinds of test: a verb's numbers are right, and a row's numbers do not depend on its neighbours, on threads, on pages
or on chunks (law 1), which is tested by equality.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from edgewise.base import EdgewiseError
from edgewise.kernels.api import AttnSpec, Device, Routing, SeqRows
from edgewise.testing.twins import round_bf16

Doubles = npt.NDArray[np.float64]


def _bits(x: Any) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def _bytes_of(values: npt.NDArray[Any], fmt: str) -> bytes:
    if fmt == "BF16":
        bits = _bits(values)
        return bytes(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes())
    return bytes(values.astype({"F32": np.float32, "F16": np.float16}[fmt]).tobytes())


class DeviceContract:
    """threads: thread counts that must give equal bits. tolerance: of float verbs, relative to the terms' size."""

    threads: ClassVar[Sequence[int]] = (1, 2)
    tolerance: ClassVar[float] = 2e-6

    def make(self, threads: int) -> Device:
        raise NotImplementedError

    @pytest.fixture
    def device(self) -> Device:
        return self.make(self.threads[-1])

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(7)

    # loading and helpers of the contract itself

    def weight(self, device: Device, values: npt.NDArray[Any], fmt: str = "F32", rows: Any = None) -> Any:
        data = _bytes_of(values, fmt)
        return device.load(values.shape, fmt, lambda at, n: data[at : at + n], rows)

    def close(self, got: Any, want: Doubles, size: Any = 1.0) -> None:
        """|got - want| within tolerance times the size of the terms that were added."""
        assert got.shape == want.shape
        assert got.dtype == np.float32
        worst = np.max(np.abs(got - want) / np.maximum(size, 1e-3))
        assert worst <= self.tolerance, worst

    def same_rows(self, run: Callable[[Device, Any], Any], x: npt.NDArray[Any]) -> None:
        """run(device, rows of x) gives the same bits for any split of the rows and any number of threads."""
        whole = _bits(run(self.make(self.threads[0]), x))
        for threads in self.threads:
            device = self.make(threads)
            assert np.array_equal(_bits(run(device, x)), whole), f"{threads} threads"
            for size in (1, 2, 7):
                parts = [_bits(run(device, x[i : i + size])) for i in range(0, len(x), size)]
                assert np.array_equal(np.concatenate(parts), whole), f"{size} rows at a time"

    # arrays

    def test_upload_then_download_is_the_identity(self, device: Device, rng: np.random.Generator) -> None:
        x = rng.standard_normal((3, 5), np.float32)
        assert np.array_equal(_bits(device.download(device.upload(x))), _bits(x))

    def test_upload_copies(self, device: Device) -> None:
        x = np.ones((2, 3), np.float32)
        held = device.upload(x)
        x[:] = 5
        assert np.array_equal(device.download(held), np.ones((2, 3), np.float32))

    # rows

    @pytest.mark.parametrize("fmt", ["F32", "F16", "BF16"])
    @pytest.mark.parametrize(("out", "inner"), [(1, 1), (3, 5), (48, 48), (67, 129), (5, 1000)])
    def test_linear(self, device: Device, rng: np.random.Generator, fmt: str, out: int, inner: int) -> None:
        values = rng.standard_normal((out, inner), np.float32)
        stored = device.download(device.embed(self.weight(device, values, fmt), np.arange(out, dtype=np.int32)))
        x, bias = rng.standard_normal((9, inner), np.float32), rng.standard_normal(out, np.float32)
        more = rng.standard_normal((9, out), np.float32)
        w = self.weight(device, values, fmt)
        assert tuple(w.shape) == (out, inner)
        assert w.format == fmt
        met = round_bf16(x) if fmt == "BF16" else x  # what BF16 weights multiply
        want = met.astype(np.float64) @ np.array(stored, np.float64).T
        size = np.abs(x).astype(np.float64) @ np.abs(np.array(stored, np.float64)).T + 1
        held = device.upload(x)
        self.close(device.download(device.linear(held, w)), want, size)
        full = device.linear(held, w, device.upload(bias), device.upload(more))
        self.close(device.download(full), want + bias + more, size + np.abs(more))

    def test_linear_rows_do_not_see_each_other(self, rng: np.random.Generator) -> None:
        values = rng.standard_normal((67, 259), np.float32)
        rows = rng.standard_normal((16, 259), np.float32)
        for fmt in ("F32", "F16", "BF16"):

            def run(d: Device, x: Any, fmt: str = fmt) -> Any:
                return d.download(d.linear(d.upload(x), self.weight(d, values, fmt))).copy()

            self.same_rows(run, rows)

    def test_load_picks_and_permutes_rows(self, device: Device, rng: np.random.Generator) -> None:
        values = rng.standard_normal((12, 32), np.float32)
        rows = np.array([3, 1, 11, 0], np.int32)
        w = self.weight(device, values, "F32", rows)
        assert tuple(w.shape) == (4, 32)
        got = device.download(device.embed(w, np.arange(4, dtype=np.int32)))
        assert np.array_equal(_bits(got), _bits(values[rows]))

    def test_embed_gives_the_stored_numbers(self, device: Device, rng: np.random.Generator) -> None:
        values = rng.standard_normal((11, 48), np.float32)
        ids = np.array([10, 0, 0, 7], np.int32)
        got = device.download(device.embed(self.weight(device, values), ids))
        assert np.array_equal(_bits(got), _bits(values[ids]))

    def test_rows_picks_rows(self, device: Device, rng: np.random.Generator) -> None:
        x = rng.standard_normal((6, 7), np.float32)
        index = np.array([5, 2], np.int32)
        assert np.array_equal(_bits(device.download(device.rows(device.upload(x), index))), _bits(x[index]))

    @pytest.mark.parametrize(("columns", "run"), [(48, 48), (48, 16), (129, 129), (96, 32)])
    def test_rms_norm(self, device: Device, rng: np.random.Generator, columns: int, run: int) -> None:
        x, w = rng.standard_normal((5, columns), np.float32), rng.standard_normal(run, np.float32)
        runs = x.astype(np.float64).reshape(5, -1, run)
        want = (runs / np.sqrt((runs**2).mean(-1, keepdims=True) + 1e-5) * w).reshape(5, columns)
        got = device.download(device.rms_norm(device.upload(x), device.upload(w), 1e-5))
        self.close(got, want, np.abs(want) + 1)
        self.same_rows(lambda d, y: d.download(d.rms_norm(d.upload(y), d.upload(w), 1e-5)).copy(), x)

    def test_small_verbs(self, device: Device, rng: np.random.Generator) -> None:
        x, y = rng.standard_normal((4, 33), np.float32) * 4, rng.standard_normal((4, 33), np.float32)
        a, b = device.upload(x), device.upload(y)
        assert np.array_equal(_bits(device.download(device.add(a, b))), _bits(x + y))
        assert np.array_equal(_bits(device.download(device.scale(a, 0.3))), _bits(x * np.float32(0.3)))
        wide = x.astype(np.float64)
        self.close(device.download(device.softcap(a, 3.0)), 3 * np.tanh(wide / 3), 3)

    @pytest.mark.parametrize("kind", ["silu", "gelu_tanh", "gelu", "relu"])
    def test_act_mul(self, device: Device, rng: np.random.Generator, kind: str) -> None:
        from math import erf

        extremes = np.array([0, -0.0, 90, -90, 300, -300], np.float32)
        x = np.concatenate([rng.standard_normal(300, np.float32) * 5, extremes])
        up = rng.standard_normal(len(x)).astype(np.float32)
        g = x.astype(np.float64)
        with np.errstate(over="ignore"):
            want = {
                "silu": g / (1 + np.exp(-g)),
                "gelu_tanh": 0.5 * g * (1 + np.tanh(0.7978845608028654 * (g + 0.044715 * g**3))),
                "gelu": np.array([v * 0.5 * (1 + erf(v / 2**0.5)) for v in g]),
                "relu": np.maximum(g, 0),
            }[kind] * up
        got = device.download(device.act_mul(device.upload(x[None]), device.upload(up[None]), kind))
        self.close(got, want[None], np.abs(g * up)[None] + 1)

    @pytest.mark.parametrize(("head_dim", "pairs"), [(16, 8), (32, 16), (32, 6), (80, 40)])
    def test_rope(self, device: Device, rng: np.random.Generator, head_dim: int, pairs: int) -> None:
        x = rng.standard_normal((5, 3 * head_dim), np.float32)
        angles = rng.uniform(-9, 9, (40, pairs))
        table = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        positions = np.array([0, 39, 7, 7, 1], np.int32)
        want = x.astype(np.float64).reshape(5, 3, head_dim).copy()
        a, b = want[..., :pairs].copy(), want[..., pairs : 2 * pairs].copy()
        cos, sin = table.astype(np.float64)[:, positions][:, :, None]
        want[..., :pairs], want[..., pairs : 2 * pairs] = a * cos - b * sin, b * cos + a * sin
        got = device.download(device.rope(device.upload(x), positions, device.upload(table), head_dim))
        self.close(got, want.reshape(x.shape), 4)

    @pytest.mark.parametrize("cols", [1, 31, 32, 4095, 9001])
    def test_peaks(self, device: Device, rng: np.random.Generator, cols: int) -> None:
        x = rng.standard_normal((9, cols), np.float32)
        x[1] = -3.0  # all equal: the first
        x[2, [0, cols // 2, cols - 1]] = 9.0
        x[3, cols - 1] = 9.0
        x[4, cols - 1] = np.nan
        x[5, 0] = np.inf
        x[6, cols // 2] = -np.inf
        x[7] = -np.finfo(np.float32).max
        want = [-1 if at in (4, 5, 6) else int(row.argmax()) for at, row in enumerate(x)]
        assert list(device.peaks(device.upload(x))) == want
        assert list(device.peaks(device.upload(x[3:4]))) == want[3:4]

    # mixture of experts

    @pytest.mark.parametrize("kind", ["softmax", "topk_softmax", "sigmoid"])
    @pytest.mark.parametrize("renormalise", [False, True])
    def test_top_k(self, device: Device, rng: np.random.Generator, kind: str, renormalise: bool) -> None:
        logits = rng.standard_normal((6, 9), np.float32)
        logits[2] = 0.5  # all equal: the lowest ids win
        routing = device.top_k(device.upload(logits), 3, kind, renormalise)
        wide = np.exp(logits.astype(np.float64))
        ids = np.argsort(-logits, axis=-1, kind="stable")[:, :3]
        best = np.take_along_axis(wide, ids, -1)
        over = wide.sum(-1, keepdims=True) if kind == "softmax" else best.sum(-1, keepdims=True)
        if kind == "sigmoid":
            best, over = best / (1 + best), np.ones(())
        want = best / best.sum(-1, keepdims=True) if renormalise else best / over
        assert np.array_equal(routing.ids, ids)
        self.close(np.asarray(routing.weights), want)

    def test_moe(self, device: Device, rng: np.random.Generator) -> None:
        values = [rng.standard_normal((5, *shape), np.float32) * 0.3 for shape in ((40, 48), (40, 48), (48, 40))]
        x = rng.standard_normal((13, 48), np.float32)
        ids = np.stack([rng.permutation(5)[:2] for _ in range(13)]).astype(np.int32)
        weights = rng.uniform(0.1, 1, (13, 2)).astype(np.float32)
        ids[4] = [2, 2]  # the same expert twice is allowed: the shared expert of some models is run this way
        want = np.zeros((13, 48))
        for t in range(13):
            for e, w in zip(ids[t], weights[t], strict=True):
                gate, up, down = (v[e].astype(np.float64) for v in values)
                g = gate @ x[t]
                want[t] += w * (down @ (g / (1 + np.exp(-g)) * (up @ x[t])))

        def packed(d: Device) -> tuple[Any, Any, Any]:
            gate, up, down = (d.experts([self.weight(d, one) for one in v]) for v in values)
            return gate, up, down

        gate, up, down = packed(device)
        assert tuple(gate.shape) == (5, 40, 48)
        got = device.download(device.moe(device.upload(x), Routing(ids, weights), gate, up, down, "silu"))
        self.close(got, want, 30)

        tagged = np.concatenate([x, np.arange(13, dtype=np.float32)[:, None]], 1)  # so that a part knows its routing

        def run(d: Device, rows: Any) -> Any:
            which = rows[:, -1].astype(int)
            routing = Routing(ids[which], weights[which])
            return d.download(d.moe(d.upload(np.ascontiguousarray(rows[:, :-1])), routing, *packed(d), "silu")).copy()

        self.same_rows(run, tagged)

    # attention

    def attend(
        self,
        device: Device,
        spec: AttnSpec,
        qkv: Sequence[npt.NDArray[Any]],
        *,
        chunks: Sequence[int],
        page_tokens: int = 16,
        dtype: str = "f32",
        neighbour: bool = False,
    ) -> Any:
        """Runs one sequence in chunks over scattered pages, optionally beside another sequence; (tokens, heads*dim)."""
        q, k, v = qkv
        n = len(q)
        need = -(-n // page_tokens)
        pool = device.alloc_pages(2 * need + 3, page_tokens, spec.kv_heads, spec.head_dim, dtype)
        scattered = np.random.default_rng(3).permutation(2 * need + 3).astype(np.int32)
        tables = [np.ascontiguousarray(scattered[:need]), np.ascontiguousarray(scattered[need : 2 * need])]
        out, past = [], 0
        for size in chunks:
            rows = [SeqRows(seq=0, start=0, count=size, past=past)]
            new = [a[past : past + size] for a in (q, k, v)]
            if neighbour:  # comes first, other numbers, same length
                rows = [SeqRows(1, 0, size, past), SeqRows(0, size, size, past)]
                new = [np.concatenate([a[::-1] * np.float32(1.5), a]) for a in new]
            plan = device.attn_plan(rows, tables[::-1] if neighbour else tables[:1], page_tokens)
            device.append(pool, device.upload(new[1]), device.upload(new[2]), plan)
            got = device.download(device.attention(spec, device.upload(new[0]), pool, plan))
            out.append(np.array(got[-size:]))
            past += size
        return np.concatenate(out)

    @pytest.mark.parametrize(
        ("heads", "kv_heads", "head_dim", "window", "softcap"),
        [(3, 1, 16, None, None), (6, 2, 32, 5, None), (4, 4, 80, None, 2.0), (8, 2, 64, 20, 9.0), (2, 1, 128, 1, None)],
    )
    def test_attention(
        self,
        device: Device,
        rng: np.random.Generator,
        heads: int,
        kv_heads: int,
        head_dim: int,
        window: int | None,
        softcap: float | None,
    ) -> None:
        n = 70
        q = rng.standard_normal((n, heads * head_dim), np.float32)
        k, v = (rng.standard_normal((n, kv_heads * head_dim), np.float32) for _ in range(2))
        spec = AttnSpec(0, heads, kv_heads, head_dim, head_dim**-0.5, window, softcap)
        wide_q = q.astype(np.float64).reshape(n, heads, head_dim)
        wide_k, wide_v = (
            np.repeat(a.astype(np.float64).reshape(n, kv_heads, head_dim), heads // kv_heads, axis=1) for a in (k, v)
        )
        scores = np.einsum("thd,shd->hts", wide_q, wide_k) * spec.scale
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        t, s = np.arange(n)[:, None], np.arange(n)[None]
        seen = (s <= t) & (s > t - (window or n))
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        want = np.einsum("hts,shd->thd", weights, wide_v).reshape(n, -1)
        got = self.attend(device, spec, (q, k, v), chunks=[n])
        self.close(got, want, 10)

    @pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "int8"])
    @pytest.mark.parametrize("window", [None, 9])
    def test_attention_does_not_see_chunks_pages_threads_or_neighbours(
        self, rng: np.random.Generator, dtype: str, window: int | None
    ) -> None:
        n = 150
        qkv = [rng.standard_normal((n, h * 32), np.float32) for h in (6, 2, 2)]
        spec = AttnSpec(0, 6, 2, 32, 32**-0.5, window)
        want = _bits(self.attend(self.make(self.threads[0]), spec, qkv, chunks=[n], dtype=dtype))
        for threads in self.threads:
            for chunks in ([n], [1] * n, [64, 64, 22], [7] * 21 + [3]):
                for page_tokens in (16, 48, 64):
                    for neighbour in (False, True):
                        got = self.attend(
                            self.make(threads),
                            spec,
                            qkv,
                            chunks=chunks,
                            page_tokens=page_tokens,
                            dtype=dtype,
                            neighbour=neighbour,
                        )
                        assert np.array_equal(_bits(got), want), (threads, len(chunks), page_tokens, neighbour)

    @pytest.mark.parametrize(("dtype", "bits"), [("f16", 10), ("bf16", 7)])
    def test_narrow_caches_round_keys_and_values_once(
        self, device: Device, rng: np.random.Generator, dtype: str, bits: int
    ) -> None:
        # One cached token: its value comes back as it was stored, which is the nearest narrow number.
        v = rng.standard_normal((1, 32), np.float32)
        spec = AttnSpec(0, 1, 1, 32, 1.0)
        got = self.attend(device, spec, (v, v, v), chunks=[1], dtype=dtype)
        assert np.abs(got - v).max() > 0
        exponent = np.floor(np.log2(np.abs(v)))
        assert (np.abs(got - v) <= 2.0 ** (exponent - bits - 1)).all()
        again = self.attend(device, spec, (got, got, got), chunks=[1], dtype=dtype)
        assert np.array_equal(_bits(again), _bits(got))

    def test_an_int8_cache_has_a_scale_for_each_token_and_head(self, device: Device, rng: np.random.Generator) -> None:
        # One cached token: its value comes back as it was stored, within half a step of its own head's scale.
        v = rng.standard_normal((1, 64), np.float32) * np.repeat(np.array([1, 100], np.float32), 32)[None]
        spec = AttnSpec(0, 2, 2, 32, 1.0)
        got = self.attend(device, spec, (v, v, v), chunks=[1], dtype="int8").reshape(2, 32)
        step = np.abs(v.reshape(2, 32)).max(-1, keepdims=True) / 127
        assert (np.abs(got - v.reshape(2, 32)) <= 0.501 * step).all()
        assert np.abs(got - v.reshape(2, 32)).max() > 0
        zeros = np.zeros_like(v)
        assert not self.attend(device, spec, (v, zeros, zeros), chunks=[1], dtype="int8").any()

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e7])
    def test_an_int8_cache_does_not_hide_what_is_not_finite(
        self, device: Device, rng: np.random.Generator, wrong: float
    ) -> None:
        v = rng.standard_normal((3, 32), np.float32)
        bad = v.copy()
        bad[0, 5] = wrong
        spec = AttnSpec(0, 1, 1, 32, 1.0)
        for k, values in ((bad, v), (v, bad)):
            assert np.isnan(self.attend(device, spec, (v, k, values), chunks=[3], dtype="int8")).any()

    @pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "int8"])
    def test_copy_page(self, device: Device, rng: np.random.Generator, dtype: str) -> None:
        k = rng.standard_normal((4, 16), np.float32)
        pool = device.alloc_pages(3, 16, 1, 16, dtype)
        rows, one = [SeqRows(0, 0, 4, 0)], [SeqRows(0, 0, 1, 3)]
        page = [np.array([number], np.int32) for number in range(3)]
        spec = AttnSpec(0, 1, 1, 16, 0.25)
        device.append(pool, device.upload(k), device.upload(k), device.attn_plan(rows, page[1:2], 16))
        device.copy_page(pool, 1, 2)
        q = device.upload(k[3:])
        plans = [device.attn_plan(one, page[which : which + 1], 16) for which in (1, 2)]
        first, second = (np.array(device.download(device.attention(spec, q, pool, plan))) for plan in plans)
        assert np.array_equal(_bits(first), _bits(second))

    @pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "int8"])
    @pytest.mark.parametrize("head_dim", [16, 24])
    def test_saved_pages_come_back_elsewhere(
        self, device: Device, rng: np.random.Generator, dtype: str, head_dim: int
    ) -> None:
        k = rng.standard_normal((20, 2 * head_dim), np.float32)
        pool = device.alloc_pages(5, 16, 2, head_dim, dtype)
        rows, one = [SeqRows(0, 0, 20, 0)], [SeqRows(0, 0, 1, 19)]
        before, after = np.array([3, 1], np.int32), np.array([0, 4], np.int32)
        spec = AttnSpec(0, 2, 2, head_dim, 0.25)
        device.append(pool, device.upload(k), device.upload(2 * k), device.attn_plan(rows, [before], 16))
        device.load_pages(pool, after, device.save_pages(pool, before))
        q = device.upload(k[19:])
        plans = [device.attn_plan(one, [table], 16) for table in (before, after)]
        first, second = (np.array(device.download(device.attention(spec, q, pool, plan))) for plan in plans)
        assert np.array_equal(_bits(first), _bits(second))
        with pytest.raises((EdgewiseError, ValueError)):
            device.load_pages(pool, after, device.save_pages(pool, before[:1]))

    @pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
    def test_a_row_that_two_sequences_share_is_found_in_both(
        self, device: Device, rng: np.random.Generator, dtype: str
    ) -> None:
        """Rows written for sequence 0, and as copies where sequence 1 looks for them: both attend to the same bits."""
        k = rng.standard_normal((4, 32), np.float32)
        pool = device.alloc_pages(3, 16, 2, 16, dtype)
        tables = [np.array([0], np.int32), np.array([2], np.int32)]
        spec = AttnSpec(0, 2, 2, 16, 0.25)
        first = device.attn_plan([SeqRows(0, 0, 3, 0)], tables[:1], 16)
        device.append(pool, device.upload(k[:3]), device.upload(2 * k[:3]), first)
        again = device.alloc_pages(3, 16, 2, 16, dtype)
        plan = device.attn_plan(
            [SeqRows(0, 0, 3, 0), SeqRows(1, 3, 1, 3)], tables, 16, [(row, 2, row) for row in range(3)]
        )
        device.append(again, device.upload(k), device.upload(2 * k), plan)
        got = np.array(device.download(device.attention(spec, device.upload(k), again, plan)))
        last = device.attn_plan([SeqRows(0, 0, 1, 3)], tables[:1], 16)
        device.append(pool, device.upload(k[3:]), device.upload(2 * k[3:]), last)
        want = np.array(device.download(device.attention(spec, device.upload(k[3:]), pool, last)))
        assert np.array_equal(_bits(got[3:]), _bits(want))

    @pytest.mark.parametrize("copy", [(9, 0, 0), (0, -1, 0), (0, 0, 16)])
    def test_a_copy_to_nowhere_is_refused(self, device: Device, copy: tuple[int, int, int]) -> None:
        with pytest.raises((EdgewiseError, ValueError)):
            device.attn_plan([SeqRows(0, 0, 1, 0)], [np.zeros(1, np.int32)], 16, [copy])

    # refusals

    def test_unknown_names_are_refused_in_a_sentence(self, device: Device) -> None:
        x = device.upload(np.ones((1, 4), np.float32))
        for call in (
            lambda: device.load((4, 4), "Q9_Z", lambda at, n: bytes(n)),
            lambda: device.act_mul(x, x, "swoosh"),
            lambda: device.top_k(x, 2, "hardmax", False),
            lambda: device.alloc_pages(1, 16, 1, 16, "f3"),
        ):
            with pytest.raises(EdgewiseError):
                call()
