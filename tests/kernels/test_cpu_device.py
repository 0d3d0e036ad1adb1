"""The CPU device keeps the contract that every device keeps."""

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
