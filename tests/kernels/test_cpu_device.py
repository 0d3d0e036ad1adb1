"""The CPU device keeps the contract that every device keeps."""

import gc
import os

import numpy as np
import pytest

pytest.importorskip("edgewise._native")

from edgewise.kernels.api import Device
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.testing.device_contract import DeviceContract


@pytest.mark.native
class TestCpuDevice(DeviceContract):
    threads = (1, 2)

    def make(self, threads: int) -> Device:
        return CpuDevice(threads)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.native
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_weights_share_memory_and_give_it_back() -> None:
    device, rng = CpuDevice(1), np.random.default_rng(0)
    stored = [rng.normal(size=(rows, 512)).astype(np.float32) for rows in (7, 4096, 33, 4096, 50, 20000)]
    raw = [s.reshape(-1).view(np.uint8) for s in stored]
    weights = [device.load(s.shape, "F32", lambda at, n, b=b: b[at : at + n]) for s, b in zip(stored, raw, strict=True)]
    x = device.upload(np.eye(1, 512, 3, dtype=np.float32))
    before = resident_bytes()
    gone = sum(weights[i].nbytes for i in (1, 3, 5))
    for i in (5, 3, 1):  # neighbours of what stays
        del weights[i]
    gc.collect()
    assert before - resident_bytes() > 0.9 * gone
    for w, i in zip(weights, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(device.download(device.linear(x, w))[0], stored[i][:, 3])
