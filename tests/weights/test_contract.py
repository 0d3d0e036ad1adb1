"""Both checkpoint formats keep the contract, in one file and in several."""

import json
from pathlib import Path

import gguf
import pytest
from safetensors.numpy import save_file

from edgewise.testing.checkpoint_contract import TENSORS, CheckpointContract

pytestmark = pytest.mark.native


class TestSafetensors(CheckpointContract):
    def make(self, folder: Path) -> Path:
        (folder / "config.json").write_text('{"model_type": "llama"}')
        save_file(dict(TENSORS), folder / "model.safetensors")
        return folder


class TestSharded(CheckpointContract):
    def make(self, folder: Path) -> Path:
        (folder / "config.json").write_text('{"model_type": "llama"}')
        weight_map = {}
        for i, (name, values) in enumerate(TENSORS.items()):
            file = f"model-{i:05d}.safetensors"
            save_file({name: values}, folder / file)
            weight_map[name] = file
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder


class TestGguf(CheckpointContract):
    def make(self, folder: Path) -> Path:
        path = folder / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for name, values in TENSORS.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        # The writer pads the last tensor; without the padding every cut must show.
        last = max(len(v.tobytes()) for k, v in TENSORS.items() if k == "c.bias")
        path.write_bytes(path.read_bytes()[: -(-last % 32) or None])
        return path
