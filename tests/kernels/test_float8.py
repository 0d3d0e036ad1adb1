"""8-bit floats: all 256 codes, narrowing, the kernels of every table against their twin, and into INT8 at load."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.base import BadInput  # noqa: E402
from edgewise.kernels import formats  # noqa: E402
from edgewise.kernels.api import Place  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.kernels.devices.reference import ReferenceDevice  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()
INT8 = "int8:group=32"


def reader(stored: np.ndarray) -> Callable[[int, int], np.ndarray]:
    flat = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return lambda offset, nbytes: flat[offset : offset + nbytes]


def numbers(fmt: str, rows: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """Codes (rows, cols) of finite numbers, all of which occur when there is room."""
    codes = rng.integers(0, 256, (rows, cols), dtype=np.uint8)
    every = np.arange(256, dtype=np.uint8)
    codes.reshape(-1)[: min(256, codes.size)] = every[: codes.size]
    wrong = ~np.isfinite(formats.dequantize(fmt, codes, codes.size)).reshape(codes.shape)
    codes[wrong] = 0x12
    return codes


def by_hand(fmt: str, code: int) -> float:
    """What the published layout says a code is."""
    bits, bias = (3, 7) if fmt == "F8_E4M3" else (2, 15)
    sign, exponent, mantissa = -1.0 if code & 128 else 1.0, (code & 127) >> bits, code & ((1 << bits) - 1)
    if fmt == "F8_E4M3" and code & 127 == 127:
        return float("nan")
    if fmt == "F8_E5M2" and exponent == 31:
        return float("nan") if mantissa else sign * float("inf")
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - bits)
    return sign * (1 + mantissa / (1 << bits)) * 2.0 ** (exponent - bias)


@pytest.mark.parametrize("fmt", formats.FLOAT8)
def test_every_code(fmt: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    values = formats.dequantize(fmt, codes, 256)
    np.testing.assert_array_equal(values, np.array([by_hand(fmt, c) for c in range(256)], np.float32))
    assert list(np.signbit(values)) == [c >= 128 for c in range(256)]
    finite = np.isfinite(values)
    assert values[finite].max() == formats.find(fmt).largest
    np.testing.assert_array_equal(formats.quantize(fmt, values)[finite], codes[finite])
    torch = pytest.importorskip("torch")
    kind = torch.float8_e4m3fn if fmt == "F8_E4M3" else torch.float8_e5m2
    np.testing.assert_array_equal(torch.from_numpy(codes).view(kind).float().numpy(), values)


@pytest.mark.parametrize("fmt", formats.FLOAT8)
def test_narrowing_is_to_nearest_even_and_ends_at_the_largest(fmt: str) -> None:
    codes = np.arange(128, dtype=np.uint8)
    values = formats.dequantize(fmt, codes, 128)
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = values[:-1], values[1:]
    middle = ((low + high) / 2).astype(np.float32)
    even = np.arange(len(low)) + np.arange(len(low)) % 2
    for sign in (1, -1):
        for x, want in ((middle, even), (np.nextafter(middle, np.float32(0)), np.arange(len(low))),
                        (np.nextafter(middle, np.float32(np.inf)), np.arange(len(low)) + 1)):
            got = formats.quantize(fmt, sign * x)
            np.testing.assert_array_equal(got, want + (128 if sign < 0 else 0))
    largest = formats.find(fmt).largest
    back = formats.dequantize(fmt, formats.quantize(fmt, np.array([1e9, -np.inf, np.nan], np.float32)), 3)
    np.testing.assert_array_equal(back, np.array([largest, -largest, np.nan], np.float32))
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).normal(size=20000).astype(np.float32) * np.repeat(2.0 ** np.arange(-18, 2), 1000)
    x = x.astype(np.float32)
    kind = torch.float8_e4m3fn if fmt == "F8_E4M3" else torch.float8_e5m2
    np.testing.assert_array_equal(formats.quantize(fmt, x), torch.from_numpy(x).to(kind).view(torch.uint8).numpy())


@pytest.mark.parametrize("fmt", formats.FLOAT8)
@pytest.mark.parametrize("isa", ISAS)
def test_equals_twin(isa: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_ISA", isa)
    dev = CpuDevice(1)
    for rows, cols in ((1, 1), (16, 128), (33, 7), (37, 261), (50, 130), (20, 387)):
        rng = np.random.default_rng(rows + cols)
        codes = numbers(fmt, rows, cols, rng)
        values = formats.dequantize(fmt, codes, codes.size).reshape(codes.shape)
        scales = (np.abs(rng.normal(size=(rows, -(-cols // 128)))) * 1e-3 + 1e-6).astype(np.float32)
        w = dev.load((rows, cols), fmt, reader(codes), scales=scales)
        assert (w.shape, w.format) == ((rows, cols), fmt)
        np.testing.assert_array_equal(
            dev.download(dev.embed(w, np.arange(rows, dtype=np.int32))),
            values * np.repeat(scales, 128, 1)[:, :cols])
        x = rng.normal(size=(75, cols)).astype(np.float32)
        want = twins.float8_chain32(values, scales, x)
        for n in (75, 73, 65, 64, 17, 9, 8, 7, 6, 5, 4, 3, 2, 1):
            np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])


@pytest.mark.parametrize("fmt", formats.FLOAT8)
@pytest.mark.parametrize("isa", ISAS)
def test_every_code_in_every_place(isa: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One activation of 1 at a time: the products are the decoded weights themselves, infinities and NaN with them."""
    monkeypatch.setenv("EDGEWISE_ISA", isa)
    dev = CpuDevice(1)
    codes = (np.arange(256)[:, None] + np.arange(5)[None] * 51).astype(np.uint8)
    values = formats.dequantize(fmt, codes, codes.size).reshape(codes.shape)
    for k in range(5):
        w = dev.load((256, 1), fmt, reader(codes[:, k : k + 1]))
        for n in (1, 9):
            got = dev.download(dev.linear(dev.upload(np.ones((n, 1), np.float32)), w))
            np.testing.assert_array_equal(got, np.repeat(values[:, k][None], n, 0))


@pytest.mark.parametrize("fmt", formats.FLOAT8)
def test_threads_bias_residual_and_rows(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    rows, cols = 150, 300
    codes = numbers(fmt, rows, cols, rng)
    scales = np.abs(rng.normal(size=(rows, 3))).astype(np.float32)
    x = rng.normal(size=(70, cols)).astype(np.float32)
    bias, add = rng.normal(size=rows).astype(np.float32), rng.normal(size=(70, rows)).astype(np.float32)
    results = []
    for isa in ISAS:
        for threads in (1, 3):
            monkeypatch.setenv("EDGEWISE_ISA", isa)
            dev = CpuDevice(threads)
            w = dev.load((rows, cols), fmt, reader(codes), scales=scales)
            results.append(np.array(dev.linear(dev.upload(x), w, dev.upload(bias), dev.upload(add))))
            plain = np.array(dev.linear(dev.upload(x), w))
            np.testing.assert_array_equal(results[-1], (plain + bias) + add)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    for order in (rng.permutation(rows), np.arange(40, 80), np.array([149, 0, 7, 7, 148])):
        picked = dev.load((rows, cols), fmt, reader(codes), order.astype(np.int32), scales=scales)
        np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x), picked)), plain[:, order])
    reference = ReferenceDevice()
    slow = reference.linear(x, reference.load((rows, cols), fmt, reader(codes), scales=scales))
    size = np.abs(x) @ np.abs(reference.load((rows, cols), fmt, reader(codes), scales=scales).values).T
    assert (np.abs(slow - plain) / size).max() < 1e-6


@pytest.mark.parametrize("fmt", formats.FLOAT8)
@pytest.mark.parametrize("chosen", ["all", "some"])
def test_read_from_the_file_and_into_int8(fmt: str, chosen: str, tmp_path: Path) -> None:
    """What `filling` reads and narrows itself, what goes through Python, and what the reference makes, are the same."""
    rng = np.random.default_rng(9)
    rows, cols = 70, 320
    codes = numbers(fmt, rows, cols, rng)
    scales = np.abs(rng.normal(size=(rows, 3))).astype(np.float32)
    order = None if chosen == "all" else rng.permutation(rows)[:41].astype(np.int32)
    path = tmp_path / "w"
    path.write_bytes(b"head" + codes.tobytes())
    fd = os.open(path, os.O_RDONLY)
    dev, ids = CpuDevice(2), np.arange(rows if order is None else len(order), dtype=np.int32)
    try:
        for into in (None, INT8, "BF16"):
            direct = dev.load((rows, cols), fmt, reader(codes), order, Place(fd, 4, path), scales=scales, into=into)
            dev.filling().run()
            pieces = dev.load((rows, cols), fmt, reader(codes), order, scales=scales, into=into)
            slow = ReferenceDevice().load((rows, cols), fmt, reader(codes), order, scales=scales, into=into)
            assert direct.format == pieces.format == slow.format == (into or fmt)
            for w in (direct, pieces):
                np.testing.assert_array_equal(dev.download(dev.embed(w, ids)), slow.values)
    finally:
        os.close(fd)
    with pytest.raises(BadInput, match="Scales of shape"):
        dev.load((rows, cols), fmt, reader(codes), scales=scales[:, :2])
    with pytest.raises(BadInput, match="whole blocks of 32"):
        dev.load((1, 40), fmt, reader(codes), into=INT8)
