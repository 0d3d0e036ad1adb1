"""Every device there is, for tests that must hold on each of them."""

import pytest

from edgewise.kernels.api import Device
from edgewise.kernels.devices import DEVICES


@pytest.fixture(scope="session", params=["reference", pytest.param("cpu", marks=pytest.mark.native)])
def device(request: pytest.FixtureRequest) -> Device:
    try:
        return DEVICES.build(request.param, threads=2)
    except ImportError as missing:
        pytest.skip(f"device '{request.param}': {missing}")
