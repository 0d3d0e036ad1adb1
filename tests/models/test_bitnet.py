"""Packed ternary checkpoints: the same model as with the weights written out, and refusals that name what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.kernels.api import Device
from edgewise.models import load_model
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint

SIZES: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 160}
PROMPT = np.random.default_rng(1).integers(3, 259, 40).tolist()


def pack(codes: np.ndarray) -> np.ndarray:
    """(out, in) of 0, 1, 2 → (out / 4, in) bytes, as transformers' pack_weights does it."""
    quarters = codes.reshape(4, -1, codes.shape[1]).astype(np.uint8)
    return sum((quarters[q] << 2 * q for q in range(4)), np.zeros_like(quarters[0]))


def twins(folder: Path, linear_class: str, architecture: str = "bitnet") -> tuple[Path, Path]:
    """A model of ternary weights packed, and written out as floats."""
    packed, plain = (tiny_model(architecture, folder / name, 3, **SIZES) for name in ("packed", "plain"))
    tensors = load_file(plain / "model.safetensors")
    small: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(7)
    for name, values in tensors.items():
        if not name.endswith("_proj.weight"):
            small[name] = values
            continue
        codes = rng.integers(0, 3, values.shape)
        scale = np.float32(2.0 ** -rng.integers(2, 5) * 1.25)
        small[name] = pack(codes)
        small[f"{name}_scale"] = np.array([scale if linear_class == "autobitlinear" else 1 / scale], np.float32)
        tensors[name] = (codes - 1).astype(np.float32) * scale
    save_file(small, packed / "model.safetensors")
    save_file(tensors, plain / "model.safetensors")
    configure(packed, quant_method="bitnet", linear_class=linear_class)
    return packed, plain


def configure(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("architecture", ["bitnet", "llama"])
def test_packed_is_the_model_written_out(
    tmp_path: Path, reference: Device, linear_class: str, architecture: str
) -> None:
    packed, plain = twins(tmp_path, linear_class, architecture)
    ours, floats = (
        Driver(load_model(open_checkpoint(folder), reference), reference).logits(PROMPT) for folder in (packed, plain)
    )
    assert np.abs(floats).max() > 0.5
    np.testing.assert_allclose(ours, floats, atol=2e-4)  # 1 / scale is rounded to half precision


@pytest.mark.oracle
def test_packed_says_what_transformers_says_of_the_floats(tmp_path: Path, torch_model: Any, device: Device) -> None:
    import torch

    packed, plain = twins(tmp_path, "autobitlinear")
    with torch.no_grad():
        want = torch_model(plain)(torch.tensor([PROMPT])).logits[0].numpy()
    got = Driver(load_model(open_checkpoint(packed), device), device).logits(PROMPT)
    error = float(((got - want) ** 2).sum() / (want**2).sum())
    assert error < (1e-9 if device.info.name == "reference" else 2e-3)  # the CPU rounds activations to int8


def test_our_packing_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    bitnet = pytest.importorskip("transformers.integrations.bitnet")
    codes = np.random.default_rng(0).integers(0, 3, (12, 32))
    np.testing.assert_array_equal(bitnet.pack_weights(torch.tensor(codes - 1)).numpy(), pack(codes))


def test_rows_are_made_from_any_byte_on(tmp_path: Path, reference: Device) -> None:
    """What a device may ask for: runs that cross quarters, and pieces of rows."""
    from edgewise.kernels import formats
    from edgewise.models.ternary import PackedTernary
    from edgewise.weights.api import Extent, Header, TensorInfo

    codes = np.random.default_rng(3).integers(0, 3, (16, 96))
    raw = pack(codes).tobytes()
    header = Header("hf", "bitnet", {}, (), tmp_path, {}, "m")
    info = TensorInfo("w", (4, 96), "U8", Extent(0, 0, len(raw)))
    weight = PackedTernary(info, (16, 96), 2.0, header, lambda at, n: memoryview(raw)[at : at + n])
    assert weight.format == "ternary:group=32"
    size = formats.nbytes(weight.format, 16 * 96)
    whole = bytes(weight.stored(0, size))
    values = formats.dequantize(weight.format, whole, 16 * 96).reshape(16, 96)
    np.testing.assert_array_equal(values, (codes - 1) * 0.5)
    for at, n in ((0, 30), (30, 90), (100, 1), (size - 7, 7), (0, 0)):
        assert bytes(weight.stored(at, n)) == whole[at : at + n]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "bitnet", "quantization_mode": "online"}, "quantization_mode.*'online'"),
        ({"quant_method": "bitnet", "linear_class": "other"}, "linear_class.*'other'"),
        ({"quant_method": "bitnet", "use_rms_norm": True}, "use_rms_norm"),
        ({"quant_method": "awq"}, "packed by 'awq'"),
    ],
)
def test_variants_are_refused(tmp_path: Path, reference: Device, settings: dict[str, Any], words: str) -> None:
    packed, _ = twins(tmp_path, "bitlinear")
    configure(packed, **settings)
    with pytest.raises(Unsupported, match=words):
        load_model(open_checkpoint(packed), reference)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("model.layers.0.mlp.up_proj.weight_scale", None, "no tensor.*weight_scale"),
        ("model.layers.0.mlp.up_proj.weight_scale", np.zeros(1, np.float32), "half precision"),
        ("model.layers.0.mlp.up_proj.weight_scale", np.full(2, 0.5, np.float32), "shape"),
        ("model.layers.1.mlp.up_proj.weight", np.zeros((41, 96), np.uint8), "shape"),
    ],
)
def test_broken_ones_are_refused(tmp_path: Path, reference: Device, name: str, values: Any, words: str) -> None:
    packed, _ = twins(tmp_path, "bitlinear")
    tensors = load_file(packed / "model.safetensors")
    tensors.pop(name)
    save_file(tensors if values is None else tensors | {name: values}, packed / "model.safetensors")
    with pytest.raises(EdgewiseError, match=words) as caught:
        load_model(open_checkpoint(packed), reference)
    assert isinstance(caught.value, BadInput)
