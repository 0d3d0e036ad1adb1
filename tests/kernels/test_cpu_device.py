"""The CPU device keeps the contract that every device keeps."""

import pytest

pytest.importorskip("edgewise._native")

from edgewise.kernels.api import Device  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.testing.device_contract import DeviceContract  # noqa: E402


@pytest.mark.native
class TestCpuDevice(DeviceContract):
    threads = (1, 2)

    def make(self, threads: int) -> Device:
        return CpuDevice(threads)
