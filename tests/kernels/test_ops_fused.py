"""The fused verbs give the bits of the verbs they stand for, on every kernel table and number of threads."""

import os
from typing import Any

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native


def devices() -> list[CpuDevice]:
    found, before = [], os.environ.get("EDGEWISE_ISA", "")
    for isa in native.runnable_isas():
        for threads in (1, 2, 5):
            os.environ["EDGEWISE_ISA"] = isa
            found.append(CpuDevice(threads))
    os.environ["EDGEWISE_ISA"] = before
    return found


DEVICES = devices()


def weight(d: CpuDevice, fmt: str, rows: int, cols: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    plain = (rng.normal(size=(rows, cols)) * 0.1).astype(np.float32)
    stored = plain if fmt == "F32" else twins.random_blocks(fmt, rows, cols, rng)
    flat = stored.reshape(-1).view(np.uint8)
    return d.load((rows, cols), fmt, lambda offset, nbytes: flat[offset : offset + nbytes])


@pytest.mark.parametrize("formats", [("Q4_0",) * 3, ("Q4_K", "Q4_K", "Q6_K"), ("Q8_0", "Q4_K", "F32")])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_ffn(formats: tuple[str, str, str], n: int) -> None:
    rng = np.random.default_rng(n)
    dim, width = 512, 768
    x, add = (rng.normal(size=(n, dim)).astype(np.float32) for _ in range(2))
    norm, bias = rng.normal(size=dim).astype(np.float32), rng.normal(size=width).astype(np.float32)
    results = []
    for d in DEVICES:
        gate, up = weight(d, formats[0], width, dim, 1), weight(d, formats[1], width, dim, 2)
        down = weight(d, formats[2], dim, width, 3)
        b, s, g, y = d.upload(bias), d.upload(norm), d.upload(add), d.upload(x)
        hidden = d.rms_norm(y, s, 1e-5)
        hidden = d.act_mul(d.linear(hidden, gate, b), d.linear(hidden, up), "silu")
        want = np.array(d.linear(hidden, down, None, g))
        got = d.ffn(y, gate, up, down, "silu", gate_bias=b, norm=s, eps=1e-5, add=g)
        np.testing.assert_array_equal(d.download(got), want)
        plain = d.linear(d.act_mul(d.linear(y, gate), d.linear(y, up), "gelu_tanh"), down)
        np.testing.assert_array_equal(d.download(d.ffn(y, gate, up, down, "gelu_tanh")), d.download(plain))
        results.append(want)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("formats", [("Q8_0",) * 3, ("Q4_K", "Q4_K", "Q6_K"), ("F32", "Q4_0", "Q6_K")])
@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("bare", [False, True])
def test_qkv(formats: tuple[str, str, str], n: int, bare: bool) -> None:
    rng = np.random.default_rng(n)
    dim, head, heads, kv = 512, 48, 5, 2
    sizes = (heads * head, kv * head, kv * head)
    x, norm = rng.normal(size=(n, dim)).astype(np.float32), rng.normal(size=dim).astype(np.float32)
    small = rng.normal(size=head).astype(np.float32)
    biases = [rng.normal(size=size).astype(np.float32) for size in sizes]
    positions = rng.integers(0, 30, n).astype(np.int32)
    table = rng.normal(size=(2, 30, head // 2)).astype(np.float32)
    results = []
    for d in DEVICES:
        q, k, v = (weight(d, fmt, size, dim, i) for i, (fmt, size) in enumerate(zip(formats, sizes, strict=True)))
        y = d.upload(x)
        if bare:
            want = [d.linear(y, w) for w in (q, k, v)]
            got = d.qkv(y, q, k, v)
        else:
            b, s, h, t = [d.upload(a) for a in biases], d.upload(norm), d.upload(small), d.upload(table)
            z = d.rms_norm(y, s, 1e-6)
            want = [d.linear(z, w, a) for w, a in zip((q, k, v), b, strict=True)]
            want[:2] = [d.rope(d.rms_norm(a, h, 1e-6), positions, t, head) for a in want[:2]]
            got = d.qkv(
                y, q, k, v, q_bias=b[0], k_bias=b[1], v_bias=b[2], norm=s, q_norm=h, k_norm=h, eps=1e-6,
                positions=positions, table=t, head_dim=head,
            )  # fmt: skip
        for a, c in zip(got, want, strict=True):
            np.testing.assert_array_equal(d.download(a), d.download(c))
        results.append(np.concatenate([np.array(a).ravel() for a in got]))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_refusals() -> None:
    d = DEVICES[-1]
    w, other = weight(d, "F32", 8, 6, 0), weight(d, "F32", 8, 7, 0)
    x = d.upload(np.zeros((2, 6), np.float32))
    with pytest.raises(ValueError, match="takes 7 columns"):
        d.qkv(x, w, other, w)
    with pytest.raises(ValueError, match="do not fit together"):
        d.ffn(x, w, w, w, "silu")
    with pytest.raises(ValueError, match="one position"):
        d.qkv(x, w, w, w, table=d.upload(np.zeros((2, 4, 2), np.float32)), head_dim=4)
