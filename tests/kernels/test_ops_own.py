"""Our own formats on every kernel table of this machine against their numpy twin, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.kernels import formats  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()
NAMES = [name for name in formats.names() if name.partition(":")[0] in formats.OWN]


def device(isa: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> CpuDevice:
    monkeypatch.setenv("EDGEWISE_ISA", isa)
    return CpuDevice(threads)


def reader(stored: np.ndarray) -> Callable[[int, int], np.ndarray]:
    flat = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return lambda offset, nbytes: flat[offset : offset + nbytes]


@pytest.mark.parametrize("fmt", NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_equals_twin(isa: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = device(isa, 1, monkeypatch)
    spec = formats.find(fmt)
    for rows, groups in ((1, 1), (16, 2), (37, 3), (50, 5)):
        rng = np.random.default_rng(rows)
        cols = groups * spec.block
        stored = twins.random_own_blocks(fmt, rows, cols, rng)
        w = dev.load((rows, cols), fmt, reader(stored))
        assert (w.shape, w.format) == ((rows, cols), fmt)
        values = formats.dequantize(fmt, stored, rows * cols).reshape(rows, cols)
        np.testing.assert_array_equal(dev.download(dev.embed(w, np.arange(rows, dtype=np.int32))), values)
        x = (rng.normal(size=(19, cols)) * np.exp(rng.normal(size=(19, 1)) * 3)).astype(np.float32)
        x[3] = 0
        want = twins.matmul_own(fmt, stored, x)
        for n in (19, 17, 16, 9, 8, 7, 6, 5, 4, 3, 2, 1):
            np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])
        exact = x.astype(np.float64) @ values.astype(np.float64).T
        error = np.abs(want - exact).max() / np.abs(exact).max()
        assert rows == 1 or error < 0.03  # the twin itself must mean the right thing


@pytest.mark.parametrize("fmt", NAMES)
def test_threads_bias_residual_and_rows(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    rows, cols = 150, 256
    stored = twins.random_own_blocks(fmt, rows, cols, rng)
    x = rng.normal(size=(21, cols)).astype(np.float32)
    bias, add = rng.normal(size=rows).astype(np.float32), rng.normal(size=(21, rows)).astype(np.float32)
    want = (twins.matmul_own(fmt, stored, x) + bias) + add
    for isa, threads in ((ISAS[0], 2), (ISAS[-1], 1), (ISAS[-1], 5)):
        dev = device(isa, threads, monkeypatch)
        w = dev.load((rows, cols), fmt, reader(stored))
        got = dev.download(dev.linear(dev.upload(x), w, dev.upload(bias), dev.upload(add)))
        np.testing.assert_array_equal(got, want)
        order = rng.permutation(rows).astype(np.int32)
        picked = dev.load((rows, cols), fmt, reader(stored), order)
        got = dev.download(dev.linear(dev.upload(x), picked, dev.upload(bias[order])))
        np.testing.assert_array_equal(got, (twins.matmul_own(fmt, stored, x) + bias)[:, order])


@pytest.mark.parametrize("fmt", ["int2:group=64", "int4:group=128", "int8:group=128", "ternary:group=32"])
def test_feed_forward_equals_its_steps(fmt: str) -> None:
    """The fused part quantises strips of the hidden values by the down projection's groups."""
    rng = np.random.default_rng(2)
    dim, hidden = 256, 384
    dev = CpuDevice(3)
    shapes = ((hidden, dim), (hidden, dim), (dim, hidden))
    load = [dev.load(shape, fmt, reader(twins.random_own_blocks(fmt, *shape, rng))) for shape in shapes]
    for n in (1, 7, 20):
        x = dev.upload(rng.normal(size=(n, dim)).astype(np.float32))
        steps = dev.linear(dev.act_mul(dev.linear(x, load[0]), dev.linear(x, load[1]), "silu"), load[2])
        np.testing.assert_array_equal(dev.download(dev.ffn(x, *load, "silu")), dev.download(steps))


def test_a_short_name_loads_its_default_group() -> None:
    stored = twins.random_own_blocks("int4:group=128", 20, 256, np.random.default_rng(0))
    assert CpuDevice(1).load((20, 256), "int4", reader(stored)).format == "int4:group=128"
