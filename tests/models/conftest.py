"""Devices and the reference implementation, for the tests of this room."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewise.kernels.api import Device
from edgewise.kernels.devices import DEVICES


def build(name: str) -> Device:
    """The device, or a skip that says why there is none."""
    try:
        device: Device = DEVICES.build(name)
    except (ImportError, AttributeError) as error:
        pytest.skip(f"device '{name}' is not built: {error}")
    return device


@pytest.fixture(scope="session", params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> Device:
    return build(request.param)


@pytest.fixture(scope="session")
def reference() -> Device:
    return build("reference")


@pytest.fixture(scope="session")
def torch_model() -> Callable[[Path], Any]:
    """folder → the transformers model, float32, eager attention, one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="the oracle needs torch")
        transformers = pytest.importorskip("transformers", reason="the oracle needs transformers")
        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def load(folder: Path) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        )
        model.generation_config.eos_token_id = None
        return model.eval()

    return load
