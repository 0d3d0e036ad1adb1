"""The reference device keeps the contract that every device keeps."""

from edgewise.kernels.api import Device
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.testing.device_contract import DeviceContract


class TestReferenceDevice(DeviceContract):
    threads = (1,)

    def make(self, threads: int) -> Device:
        return ReferenceDevice(threads)
