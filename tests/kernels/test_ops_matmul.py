"""Every packed format on every kernel table of this machine against its numpy twin, bit for bit."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.base import BadInput, Unsupported  # noqa: E402
from edgewise.kernels import formats  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()
QUANTS = list(twins.BLOCKS)


def device(isa: str, threads: int = 1) -> CpuDevice:
    before = os.environ.get("EDGEWISE_ISA")
    os.environ["EDGEWISE_ISA"] = isa
    try:
        return CpuDevice(threads)
    finally:
        if before is None:
            del os.environ["EDGEWISE_ISA"]
        else:
            os.environ["EDGEWISE_ISA"] = before


def reader(stored: np.ndarray) -> Callable[[int, int], np.ndarray]:
    flat = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return lambda offset, nbytes: flat[offset : offset + nbytes]


def narrowed(w: np.ndarray, fmt: str) -> np.ndarray:
    if fmt == "F32":
        return w
    if fmt == "F16":
        return w.astype(np.float16)
    return (w.view(np.uint32) >> 16).astype(np.uint16)


def widened(stored: np.ndarray, fmt: str) -> np.ndarray:
    return (stored.astype(np.uint32) << 16).view(np.float32) if fmt == "BF16" else stored.astype(np.float32)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


@pytest.mark.parametrize("fmt", QUANTS)
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (16, 2), (37, 3), (50, 9)])
def test_quantised_equals_twin(isa: str, fmt: str, rows: int, groups: int) -> None:
    rng = np.random.default_rng(rows * 31 + groups)
    cols = groups * twins.BLOCKS[fmt][0]
    stored = twins.random_blocks(fmt, rows, cols, rng)
    dev = device(isa)
    w = dev.load((rows, cols), fmt, reader(stored))
    assert w.shape == (rows, cols)
    assert w.format == fmt
    np.testing.assert_array_equal(
        dev.download(dev.embed(w, np.arange(rows, dtype=np.int32))), twins.dequantise(fmt, stored, cols))
    x = (rng.normal(size=(19, cols)) * np.exp(rng.normal(size=(19, 1)) * 3)).astype(np.float32)
    x[3] = 0
    x[5:9] *= np.repeat(np.exp2(rng.uniform(-12, 12, (4, cols // 32))), 32, 1).astype(np.float32)  # groups far apart
    want = twins.matmul_quantised(fmt, stored, x)
    got = np.array(dev.download(dev.linear(dev.upload(x), w)))
    np.testing.assert_array_equal(got, want)
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 16, 17):
        np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])
    even, want = np.delete(x, np.s_[5:9], 0), np.delete(want, np.s_[5:9], 0)
    float_result = even.astype(np.float64) @ twins.dequantise(fmt, stored, cols).astype(np.float64).T
    error = np.abs(want - float_result).max() / np.abs(float_result).max()
    assert error < 0.03  # int8 activations: the twin itself must mean the right thing


@pytest.mark.parametrize("fmt", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 64), (33, 7), (20, 66), (47, 131)])
def test_float_equals_twin(isa: str, fmt: str, rows: int, cols: int) -> None:
    rng = np.random.default_rng(rows + cols)
    stored = narrowed(rng.normal(size=(rows, cols)).astype(np.float32), fmt)
    w32 = widened(stored, fmt)
    dev = device(isa)
    w = dev.load((rows, cols), fmt, reader(stored))
    np.testing.assert_array_equal(dev.download(dev.embed(w, np.arange(rows, dtype=np.int32))), w32)
    x = rng.normal(size=(15, cols)).astype(np.float32)
    want = twins.brain_chain32(w32, x) if fmt == "BF16" else twins.chain32(w32, x)
    for n in (1, 2, 3, 4, 6, 7, 13, 15):
        np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])


def test_brain_products_at_the_edges_of_the_format(isa: str) -> None:
    """Subnormal weights, activations, sums and results, infinities and overflow, in both halves of a pair."""
    rng = np.random.default_rng(11)

    def wild(shape: tuple[int, int], low: int, high: int) -> np.ndarray:
        exponents = rng.integers(low, high, shape).astype(np.uint32)
        return (rng.integers(0, 2, shape).astype(np.uint32) << 31 | exponents << 23
                | rng.integers(0, 128, shape).astype(np.uint32) << 16).view(np.float32)

    for low, high in ((0, 3), (0, 130), (50, 80), (60, 68), (180, 230)):
        stored = narrowed(wild((40, 10), low, high), "BF16")
        x = wild((9, 10), low, high)
        w = device(isa).load(stored.shape, "BF16", reader(stored))
        dev = device(isa)
        with np.errstate(all="ignore"):
            want = twins.brain_chain32(widened(stored, "BF16"), x)
        got = np.array(dev.download(dev.linear(dev.upload(x), w)))
        finite = np.isfinite(want)
        assert (finite == np.isfinite(got)).all()
        np.testing.assert_array_equal(got[finite].view(np.uint32), want[finite].view(np.uint32))


def test_the_smallest_normal_number_is_decided_after_rounding(isa: str) -> None:
    """2^-126 - 2^-e: gone up to e = 150, kept from 151 on, where it rounds back to 2^-126."""
    for e in range(147, 155):
        stored = narrowed(np.array([[2.0**-75, 2.0**-60]], np.float32), "BF16")
        x = np.array([[-(2.0 ** (75 - e)), 2.0**-66]], np.float32)  # the odd half comes first
        dev = device(isa)
        got = dev.download(dev.linear(dev.upload(x), dev.load((1, 2), "BF16", reader(stored))))
        assert got[0, 0] == (2.0**-126 if e > 150 else 0.0)


@pytest.mark.parametrize("fmt", ["F32", "BF16", *QUANTS])
def test_threads_bias_residual_and_rows(fmt: str) -> None:
    rng = np.random.default_rng(5)
    rows, cols = 150, 512
    if fmt in twins.BLOCKS:
        stored = twins.random_blocks(fmt, rows, cols, rng)
    else:
        stored = narrowed(rng.normal(size=(rows, cols)).astype(np.float32), fmt)
    x = rng.normal(size=(70, cols)).astype(np.float32)
    bias, add = rng.normal(size=rows).astype(np.float32), rng.normal(size=(70, rows)).astype(np.float32)
    results = []
    for isa in ISAS:
        for threads in (1, 2, 5):
            dev = device(isa, threads)
            w = dev.load((rows, cols), fmt, reader(stored))
            results.append(np.array(dev.linear(dev.upload(x), w, dev.upload(bias), dev.upload(add))))
            plain = np.array(dev.linear(dev.upload(x), w))
            np.testing.assert_array_equal(results[-1], (plain + bias) + add)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    dev = CpuDevice(2)
    for order in (rng.permutation(rows), np.arange(40, 80), np.array([149, 0, 7, 7, 148])):
        picked = dev.load((rows, cols), fmt, reader(stored), order.astype(np.int32))
        np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x), picked)), plain[:, order])


@pytest.mark.parametrize("fmt", ["Q5_0", "Q3_K", "MXFP4"])
def test_other_formats_are_widened(fmt: str) -> None:
    w = np.random.default_rng(3).normal(size=(40, 256)).astype(np.float32)
    dev = CpuDevice(2)
    if fmt in formats.writable():
        stored = formats.quantize(fmt, w)
    else:
        stored = np.full(formats.nbytes(fmt, w.size), 0x3A, np.uint8)
    weight = dev.load(w.shape, fmt, reader(stored), np.arange(39, -1, -1, dtype=np.int32))
    want = formats.dequantize(fmt, stored, w.size).reshape(w.shape)[::-1]
    np.testing.assert_array_equal(dev.download(dev.embed(weight, np.arange(40, dtype=np.int32))), want)
    assert weight.format == "F32"
    assert dev.notes == [f"{fmt} is widened to F32 at load."]


def test_errors_say_what_and_where() -> None:
    with pytest.raises(BadInput, match="can run: baseline"):
        device("avx1024")
    dev = CpuDevice(1)
    with pytest.raises(BadInput, match="blocks of 32"):
        dev.load((2, 33), "Q4_0", reader(np.zeros(1000, np.uint8)))
    with pytest.raises(Unsupported, match="Q9_9"):
        dev.load((2, 32), "Q9_9", reader(np.zeros(1000, np.uint8)))
    w = dev.load((4, 8), "F32", reader(np.zeros((4, 8), np.float32)))
    with pytest.raises(ValueError, match="takes 8 columns"):
        dev.linear(dev.upload(np.zeros((1, 9), np.float32)), w)
    with pytest.raises(ValueError, match="token 4 at place 1"):
        dev.embed(w, np.array([0, 4], np.int32))
    with pytest.raises(ValueError, match="bias"):
        dev.linear(dev.upload(np.zeros((1, 8), np.float32)), w, dev.upload(np.zeros(3, np.float32)))
