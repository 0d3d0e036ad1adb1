"""Tests of this room import their own tables by plain names (pytest's importlib mode adds no path)."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def stories() -> Path:
    shared = Path(os.environ.get("EDGEWISE_SHARED", Path(__file__).parents[3] / "shared"))
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"the sample model is not at {folder}; set EDGEWISE_SHARED")
    return folder
