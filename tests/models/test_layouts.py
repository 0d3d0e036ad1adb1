"""Other ways of writing the same model, and what a model tells its listeners."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import Tap
from edgewise.kernels.api import Device
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.models import load_model, read_spec
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import tiny_config, tiny_model, tiny_tensors, write_safetensors
from edgewise.testing.twins import round_bf16
from edgewise.weights import open_checkpoint

PROMPT = np.random.default_rng(2).integers(0, 259, 40).tolist()


def logits(folder: Path, device: Device) -> Any:
    return Driver(load_model(open_checkpoint(folder), device), device).logits(PROMPT)


def same(folder: Path, other: Path, device: Device) -> bool:
    return np.array_equal(logits(folder, device).view(np.uint32), logits(other, device).view(np.uint32))


def test_gemma3_inside_a_multimodal_checkpoint(tmp_path: Path, reference: Device) -> None:
    plain = tiny_model("gemma3_text", tmp_path / "plain")
    config, tensors = tiny_config("gemma3_text"), tiny_tensors("gemma3_text", tiny_config("gemma3_text"), 0)
    for style, prefix in (("old", "language_model.model."), ("new", "model.language_model.")):
        folder = tmp_path / style
        folder.mkdir()
        outer = {"model_type": "gemma3", "text_config": config, "vision_config": {"hidden_size": 7}}
        (folder / "config.json").write_text(json.dumps(outer))
        renamed = {prefix + name.removeprefix("model."): values for name, values in tensors.items()}
        renamed["model.vision_tower.stem.weight"] = np.zeros((2, 2), np.float32)
        write_safetensors(folder / "model.safetensors", renamed)
        assert same(plain, folder, reference)


@pytest.mark.parametrize("architecture", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"])
def test_fused_experts(architecture: str, tmp_path: Path, reference: Device) -> None:
    """Newer checkpoints keep a layer's experts in two tensors: gate and up together, and down."""
    plain = tiny_model(architecture, tmp_path / "plain")
    config = tiny_config(architecture)
    tensors = tiny_tensors(architecture, config, 0)
    count = config.get("num_experts") or config["num_local_experts"]
    for layer in range(2):
        room = f"model.layers.{layer}.{'block_sparse_moe' if architecture == 'mixtral' else 'mlp'}.experts"
        gate, up, down = ("w1", "w3", "w2") if architecture == "mixtral" else ("gate_proj", "up_proj", "down_proj")
        parts = {p: [tensors.pop(f"{room}.{e}.{p}.weight") for e in range(count)] for p in (gate, up, down)}
        pairs = [np.concatenate(pair) for pair in zip(parts[gate], parts[up], strict=True)]
        fused = room.replace("block_sparse_moe", "mlp")
        tensors[f"{fused}.gate_up_proj"], tensors[f"{fused}.down_proj"] = np.stack(pairs), np.stack(parts[down])
    other = tiny_model(architecture, tmp_path / "fused")
    write_safetensors(other / "model.safetensors", tensors)
    assert same(plain, other, reference)


def test_a_checkpoint_of_the_bare_decoder_has_no_prefix(tmp_path: Path, reference: Device) -> None:
    plain = tiny_model("qwen2", tmp_path / "plain")
    other = tiny_model("qwen2", tmp_path / "bare")
    tensors = tiny_tensors("qwen2", tiny_config("qwen2"), 0)
    write_safetensors(other / "model.safetensors", {k.removeprefix("model."): v for k, v in tensors.items()})
    assert same(plain, other, reference)


class RoundingReference(ReferenceDevice):
    """Every weight meets activations rounded to BF16, as BF16 weights make it happen."""

    def linear(self, x: Any, w: Any, bias: Any = None, add: Any = None) -> Any:
        return super().linear(round_bf16(x), w, bias, add)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_narrow_weights_are_the_rounded_ones(dtype: str, tmp_path: Path, reference: Device) -> None:
    narrow = tiny_model("llama", tmp_path / dtype, dtype=dtype)
    rounded = tmp_path / "rounded"
    tiny_model("llama", rounded)
    tensors = tiny_tensors("llama", tiny_config("llama"), 0)
    if dtype == "F16":
        tensors = {k: v.astype(np.float16).astype(np.float32) for k, v in tensors.items()}
    else:
        bits = {k: v.view(np.uint32) for k, v in tensors.items()}
        tensors = {k: (((b + 0x7FFF + ((b >> 16) & 1)) >> 16) << 16).view(np.float32) for k, b in bits.items()}
    write_safetensors(rounded / "model.safetensors", tensors)
    device = reference if dtype == "F16" else RoundingReference()
    assert np.array_equal(logits(narrow, reference).view(np.uint32), logits(rounded, device).view(np.uint32))


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "qwen2_moe"])
def test_chunks_do_not_change_a_bit(architecture: str, tmp_path: Path, device: Device) -> None:
    model = load_model(open_checkpoint(tiny_model(architecture, tmp_path)), device)
    whole = Driver(model, device).logits(PROMPT)
    for chunk in (1, 16, 7):
        assert np.array_equal(Driver(model, device).logits(PROMPT, chunk).view(np.uint32), whole.view(np.uint32))


def test_layers_may_be_run_in_pieces(tmp_path: Path, reference: Device) -> None:
    folder = tiny_model("smollm3", tmp_path)
    model = load_model(open_checkpoint(folder), reference)
    want = Driver(model, reference).logits(PROMPT)

    class Pieces:
        spec, embed, head = model.spec, model.embed, model.head

        def blocks(self, x: Any, batch: Any, layers: Any) -> Any:
            for layer in layers:
                x = model.blocks(x, batch, [layer])
            return x

    assert np.array_equal(Driver(Pieces(), reference).logits(PROMPT), want)


def test_listeners_hear_every_layer(tmp_path: Path, device: Device) -> None:
    heard: list[tuple[Tap, int, tuple[int, ...]]] = []
    model = load_model(open_checkpoint(tiny_model("qwen3_moe", tmp_path)), device)
    quiet = Driver(model, device).logits(PROMPT)
    told = Driver(model, device, listen=lambda *a: heard.append((a[0], a[1], tuple(device.download(a[2]).shape))))
    assert np.array_equal(told.logits(PROMPT), quiet)
    assert heard == [
        (Tap.GATE, 0, (40, 5)), (Tap.HIDDEN, 0, (40, 48)), (Tap.GATE, 1, (40, 5)), (Tap.HIDDEN, 1, (40, 48)),
    ]  # fmt: skip


def test_only_wanted_rows_get_logits(tmp_path: Path, device: Device) -> None:
    model = load_model(open_checkpoint(tiny_model("gemma2", tmp_path)), device)
    whole = Driver(model, device).logits(PROMPT)
    some = Driver(model, device).step(PROMPT, [3, 39])
    assert np.array_equal(some.view(np.uint32), whole[[3, 39]].view(np.uint32))


def test_context_of_stretched_ropes(tmp_path: Path) -> None:
    def context(asked: int | None = None, **overrides: Any) -> int:
        folder = tiny_model("phi3", tmp_path, **overrides)
        return read_spec(open_checkpoint(folder).header(), asked).context

    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    stretched = {"rope_scaling": long, "original_max_position_embeddings": 128}
    assert context(**stretched) == 128  # what needs no change of frequencies
    assert context(400, **stretched) == 400
    assert context(9999, **stretched) == 512
    assert context(9999) == 512
    assert context(rope_scaling={"type": "dynamic", "factor": 4.0}) == 512
    assert context(1024, rope_scaling={"type": "dynamic", "factor": 4.0}) == 1024
    assert context(rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}) == 2048
