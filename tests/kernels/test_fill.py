"""Weights filled straight from files, in one region, hold the bits of weights that were read and packed one by one."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.api import Place
from edgewise.kernels.devices import DEVICES


def values(device, weight):
    rows = weight.shape[0]
    return np.array(device.download(device.embed(weight, np.arange(rows, dtype=np.int32))))


def reader(data):
    return lambda at, n: memoryview(data)[at : at + n]


@pytest.fixture
def file(tmp_path):
    """Makes (descriptor, path) of a file with the given bytes, 5 bytes in."""
    opened = []

    def make(data: bytes):
        path = tmp_path / f"{len(opened)}.bin"
        path.write_bytes(b"front" + data)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1], path

    yield make
    for fd in opened:
        os.close(fd)


def stored(fmt, rows, cols, seed=0):
    wanted = np.random.default_rng(seed).standard_normal((rows, cols), np.float32)
    return bytes(formats.quantize(fmt, wanted)) if fmt not in ("F32", "F16") else {
        "F32": wanted, "F16": wanted.astype(np.float16)
    }[fmt].tobytes()  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("fmt", ["F32", "F16", "Q4_0", "Q8_0"])
def test_filled_weights_are_the_packed_ones(file, fmt, threads):
    device = DEVICES.build("cpu", threads=threads)
    pairs = []
    for rows, cols, seed in ((1, 64, 1), (37, 256, 2), (700, 1024, 3)):
        data = stored(fmt, rows, cols, seed)
        fd, path = file(data)
        order = np.random.default_rng(seed).permutation(rows).astype(np.int32)
        far = np.array([rows - 1, 0], np.int32)
        for index in (None, order, far, np.sort(order)[: max(1, rows // 2)]):
            now = device.load((rows, cols), fmt, reader(data), index)
            later = device.load((rows, cols), fmt, reader(b""), index, Place(fd, 5, path))
            pairs.append((now, later))
    device.filling().run()
    for now, later in pairs:
        assert np.array_equal(values(device, now), values(device, later))


def test_a_weight_is_refused_until_it_is_full(file):
    device = DEVICES.build("cpu", threads=2)
    fd, path = file(stored("Q8_0", 64, 64))
    weight = device.load((64, 64), "Q8_0", reader(b""), None, Place(fd, 5, path))
    experts = device.experts([weight])
    x = device.upload(np.ones((1, 64), np.float32))
    with pytest.raises(BadInput, match="not been filled"):
        device.linear(x, weight)
    ids, shares = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    with pytest.raises(BadInput, match="not been filled"):
        device._moe(x, ids, shares, experts, experts, experts, "silu")
    filling = device.filling()
    filling.stop()
    filling.run()
    with pytest.raises(BadInput, match="not been filled"):
        device.linear(x, weight)


@pytest.mark.parametrize("order", [None, np.array([200, 1, 250], np.int32)])
def test_a_short_file_is_named_with_the_offset(file, order):
    device = DEVICES.build("cpu", threads=2)
    data = stored("Q4_0", 256, 256)
    fd, path = file(data[: len(data) // 2])
    weight = device.load((256, 256), "Q4_0", reader(b""), order, Place(fd, 5, path))
    with pytest.raises(BadInput, match=rf"{path.name}: reading \d+ bytes at byte \d+ gave only \d+: it was cut short"):
        device.filling().run()
    with pytest.raises(BadInput, match="not been filled"):
        device.embed(weight, np.zeros(1, np.int32))


def test_a_descriptor_that_cannot_be_read_says_why(file, tmp_path):
    device = DEVICES.build("cpu", threads=1)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        device.load((4, 64), "F32", reader(b""), None, Place(fd, 0, Path("folder")))
        with pytest.raises(BadInput, match=r"folder: reading 1024 bytes at byte 0 failed: Is a directory"):
            device.filling().run()
    finally:
        os.close(fd)


def test_what_was_put_off_is_handed_out_once(file):
    device = DEVICES.build("cpu", threads=1)
    fd, path = file(stored("F32", 4, 64))
    device.load((4, 64), "F32", reader(b""), None, Place(fd, 5, path))
    first, second = device.filling(), device.filling()
    assert first._filling.total_bytes == 4 * 64 * 4
    assert second._filling.total_bytes == 0
    second.run()


def test_small_pages_and_moving_to_large_ones_change_nothing(file):
    device = DEVICES.build("cpu", threads=2)
    data = stored("Q8_0", 4096, 2048)
    fd, path = file(data)
    now = device.load((4096, 2048), "Q8_0", reader(data))
    later = device.load((4096, 2048), "Q8_0", reader(b""), None, Place(fd, 5, path))
    filling = device.filling()
    filling._filling.small_pages(device)  # as a machine whose large pages come slowly makes it
    filling.run()
    wanted = values(device, now)
    assert filling.settle(0), "there is something to move"
    np.testing.assert_array_equal(values(device, later), wanted)
    steps = 0
    while filling.settle(2 << 20):
        steps += 1
        np.testing.assert_array_equal(values(device, later), wanted)
    assert steps <= 200
    assert not filling.settle(0)
    np.testing.assert_array_equal(values(device, later), wanted)
    del now, later
    assert not filling.settle(2 << 20)
