"""Where the sample model lies, for the tests that want a real one."""

import os
from pathlib import Path

import pytest

_native = pytest.importorskip("edgewise._native", reason="needs the compiled extension")


@pytest.fixture(scope="session")
def stories():
    shared = Path(os.environ.get("EDGEWISE_SHARED", Path(__file__).parents[3] / "shared"))
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"the sample model is not at {folder}; set EDGEWISE_SHARED")
    return folder
