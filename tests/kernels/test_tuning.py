"""Tunings: every setting gives the bits of every other, on every kernel table; all weights of a shape share one."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.base import BadInput  # noqa: E402
from edgewise.kernels.choices import RANGES, range_of  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()
FORMATS = ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "int2:group=64", "int4", "BF16", "F32"]
SETTINGS = [
    {"columns": columns, "blocks": blocks, "ahead": ahead, "chunk": chunk}
    for (columns, blocks), (ahead, chunk) in itertools.product(
        itertools.product((1, 2, 4, 8), (1, 2)), ((0, 384 << 10), (9216, 4 << 10))
    )
]
SPLITS = [
    {"share": 1, "cut": 7}, {"share": 1 << 20, "cut": 1}, {"threads": 1}, {"threads": 2, "wake": 0}, {"wake": 1 << 30},
]  # fmt: skip


def device(isa: str, threads: int = 1) -> CpuDevice:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWISE_ISA", isa)
        return CpuDevice(threads)


def reader(stored: np.ndarray) -> Callable[[int, int], np.ndarray]:
    flat = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return lambda offset, nbytes: flat[offset : offset + nbytes]


def stored(fmt: str, rows: int, cols: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    name = fmt if fmt in twins.BLOCKS else next((b for b in twins.BLOCKS if b.partition(":")[0] == fmt), None)
    if name is None:
        values = rng.normal(size=(rows, cols)).astype(np.float32)
        return values if fmt == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)
    return twins.random_blocks(name, rows, cols, rng)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_no_setting_changes_a_bit(isa: str, fmt: str) -> None:
    rows, cols = 81, 512
    dev = device(isa)
    w = dev.load((rows, cols), fmt, reader(stored(fmt, rows, cols)))
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 4, 7, 8, 21):
        x = dev.upload(rng.normal(size=(n, cols)).astype(np.float32))
        want = np.array(dev.linear(x, w))
        for setting in SETTINGS:
            native._tune(dev, w.format, rows, cols, range_of(n), setting)
            np.testing.assert_array_equal(dev.download(dev.linear(x, w)), want, err_msg=str(setting))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_split_of_the_work_changes_a_bit(threads: int) -> None:
    dim, width = 256, 700
    dev = device("", threads)
    gate, up = (dev.load((width, dim), "F32", reader(stored("F32", width, dim))) for _ in range(2))
    down = dev.load((dim, width), "F32", reader(stored("F32", dim, width)))
    rng = np.random.default_rng(1)
    for n in (1, 8, 40):
        x = dev.upload(rng.normal(size=(n, dim)).astype(np.float32))
        want = [np.array(dev.linear(x, gate)), np.array(dev.ffn(x, gate, up, down, "silu"))]
        for one, two in itertools.product(SPLITS, SPLITS):
            native._tune(dev, "F32", width, dim, range_of(n), one)
            native._tune(dev, "F32", dim, width, range_of(n), two)
            np.testing.assert_array_equal(dev.linear(x, gate), want[0])
            np.testing.assert_array_equal(dev.ffn(x, gate, up, down, "silu"), want[1])


def test_the_ranges_are_the_same_on_both_sides() -> None:
    dev = device("")
    w = dev.load((16, 8), "F32", reader(stored("F32", 16, 8)))
    for n in range(1, 70):
        dev.linear(dev.upload(np.zeros((n, 8), np.float32)), w)
    seen = native._matmuls(dev)
    assert [row[:4] for row in seen] == [("F32", 16, 8, at) for at in range(len(RANGES) + 1)]
    assert [row[4] for row in seen] == [1, 2, 4, 8, 64, 69]
    assert [row[5] for row in seen] == [1, 1, 2, 4, 56, 5]
    assert [range_of(row[4]) for row in seen] == [row[3] for row in seen]


def test_weights_of_one_shape_share_their_tuning() -> None:
    dev = device("")
    data = reader(stored("F32", 16, 8))
    first = dev.load((16, 8), "F32", data)
    standard = native._standard_tuning(dev, "F32", 16, 8, 0)
    assert native._tuning(dev, "F32", 16, 8, 0) == standard
    native._tune(dev, "F32", 16, 8, 0, {"cut": 5})
    second = dev.load((16, 8), "F32", data)  # loaded later
    assert native._tuning(dev, "F32", 16, 8, 0) == {**standard, "cut": 5}
    assert native._tuning(dev, "F32", 16, 8, 1) == native._standard_tuning(dev, "F32", 16, 8, 1)
    assert [w.shape for w in native._weights(dev, "F32", 16, 8)] == [(16, 8)] * 2
    del second
    assert len(native._weights(dev, "F32", 16, 8)) == 1
    assert first.shape == (16, 8)
    half = dev._new_weight(16, 8, "F32")  # not filled: nobody may multiply by it
    assert len(native._weights(dev, "F32", 16, 8)) == 1
    del half


@pytest.mark.parametrize(
    "knobs",
    [{"columns": 3}, {"blocks": 0}, {"blocks": 3}, {"ahead": -1}, {"ahead": 1 << 30}, {"chunk": 0}, {"share": -1},
     {"cut": 0}, {"threads": -1}, {"wake": -1}, {"speed": 1}, {"cut": "2"}, {"cut": 1 << 40}],
)  # fmt: skip
def test_settings_out_of_range_are_refused_and_change_nothing(knobs: dict[str, object]) -> None:
    dev = device("")
    before = native._tuning(dev, "F32", 16, 8, 0)
    with pytest.raises(BadInput, match="tune: "):
        native._tune(dev, "F32", 16, 8, 0, {"share": 77, **knobs})
    assert native._tuning(dev, "F32", 16, 8, 0) == before
    for fmt, rows, at in (("F33", 16, 0), ("F32", 0, 0), ("F32", 16, 6), ("F32", 16, -1)):
        with pytest.raises(BadInput, match="tune: "):
            native._tune(dev, fmt, rows, 8, at, {})
