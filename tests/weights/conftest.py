"""Small models to open: one from the shared samples, and ones written here."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("EDGEWISE_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture
def stories() -> Path:
    folder = SHARED / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no sample model at {folder}: set EDGEWISE_SHARED")
    return folder


def safetensors_bytes(header: Mapping[str, Any] | str | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_hf(folder: Path, config: Mapping[str, Any] | None = None) -> Path:
    """A folder that opens: one (2, 3) float32 tensor w."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, bytes(24)))
    return folder
