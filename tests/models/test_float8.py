"""FP8 checkpoints of every kind against transformers on the weights they stand for, and refusals of the others."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Device
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.models import load_model
from edgewise.models.loading import examine
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import VOCAB, tiny_model
from edgewise.weights import open_checkpoint

pytestmark = pytest.mark.oracle

SIZES: dict[str, Any] = {"hidden_size": 160, "intermediate_size": 272, "num_attention_heads": 5}
COMPRESSED: dict[str, Any] = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "kv_cache_scheme": None,
}  # fmt: skip


def group(strategy: str, **also: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, **also}
    return COMPRESSED | {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


# name → (architecture, format, what shares a scale, the scale's name and shape, settings)
CASES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "block": ("llama", "e4m3fn", "block", "weight_scale_inv",
              {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}),
    "block-e5m2": ("qwen3", "e5m2", "block", "weight_scale_inv",
                   {"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]}),
    "block-moe": ("qwen3_moe", "e4m3fn", "block", "weight_scale_inv",
                  {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "block-compressed": ("llama", "e4m3fn", "block", "weight_scale", group("block", block_structure=[128, 128])),
    "tensor": ("llama", "e4m3fn", "tensor", "weight_scale", group("tensor")),
    "tensor-static": ("qwen2", "e4m3fn", "one", "weight_scale", {"quant_method": "fp8", "activation_scheme": "static"}),
    "channel": ("mistral", "e4m3fn", "channel", "weight_scale", group("channel")),
    "channel-fused": ("phi3", "e4m3fn", "channel", "weight_scale", {"quant_method": "fbgemm_fp8"}),
    "block-fused": ("phi3", "e4m3fn", "block", "weight_scale_inv", {"quant_method": "fp8"}),
    "modelopt": ("llama", "e4m3fn", "tensor", "weight_scale", {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "bare": ("llama", "e5m2", "none", "", {}),
}


def narrowed(folder: Path, out: Path, kind: str, share: str, suffix: str) -> None:
    """Writes `folder`'s linear weights of the layers as FP8 to `out`, and into `folder` what they then stand for."""
    import torch
    from safetensors.torch import load_file, save_file

    dtype = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[kind]
    largest = torch.finfo(dtype).max
    stored, plain = {}, {}
    for name, w in load_file(folder / "model.safetensors").items():
        plain[name] = stored[name] = w
        if w.ndim != 2 or ".layers." not in name or ".gate.weight" in name:
            continue
        rows, cols = w.shape
        high, wide = {"block": (128, 128), "channel": (1, cols)}.get(share, (rows, cols))
        padded = torch.nn.functional.pad(w, (0, -cols % wide, 0, -rows % high))
        peaks = padded.abs().reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide).amax((1, 3))
        scale = torch.ones_like(peaks) if share == "none" else peaks / largest
        every = scale.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :cols]
        stored[name] = (w / every).to(dtype)
        plain[name] = stored[name].float() * every
        if share != "none":
            module = name.removesuffix("weight")
            stored[module + suffix] = scale.reshape({"tensor": [], "one": [1]}.get(share, list(scale.shape)))
            if share in ("one", "channel"):
                stored[module + ("input_scale" if share == "one" else "input_scale_ub")] = torch.ones(1)
    out.mkdir()
    for file in folder.iterdir():
        shutil.copy(file, out / file.name)
    save_file(stored, out / "model.safetensors", {"format": "pt"})
    save_file(plain, folder / "model.safetensors", {"format": "pt"})


def settings(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def make(case: str, folder: Path, **sizes: int) -> tuple[Path, Path]:
    """(FP8, plain): the same model twice."""
    architecture, kind, share, suffix, packed = CASES[case]
    plain = folder / "plain"
    tiny_model(architecture, plain, seed=3, **(sizes or SIZES))
    narrowed(plain, folder / "fp8", kind, share, suffix)
    if packed:
        settings(folder / "fp8", quantization_config=packed)
    return folder / "fp8", plain


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(
    case: str, tmp_path: Path, device: Device, torch_model: Callable[[Path], Any]
) -> None:
    """transformers computes with the weights written out in float32, its linear layers' inputs rounded to BF16."""
    import torch

    fp8, plain = make(case, tmp_path)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        oracle = torch_model(plain)
    prompt = np.random.default_rng(5).integers(3, VOCAB, 40).tolist()
    want32 = oracle(torch.tensor([prompt])).logits[0].detach().numpy()
    got = Driver(load_model(open_checkpoint(fp8), device), device).logits(prompt)
    assert np.abs(got - want32).mean() < 0.02 * want32.std()
    if "moe" not in case:  # whose experts are no Linear in transformers

        def rounded(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(x.bfloat16().float() for x in inputs)

        for name, module in oracle.named_modules():
            if isinstance(module, torch.nn.Linear) and "layers." in name:
                module.register_forward_pre_hook(rounded)
        # Single tokens: a number between two BF16 ones goes the other way after sums in another order, rarely, but
        # once is enough for all later tokens.
        model = load_model(open_checkpoint(fp8), device)
        singles = np.concatenate([Driver(model, device).logits([t]) for t in prompt[:15]])
        want = oracle(torch.tensor(prompt[:15])[:, None]).logits[:, 0].detach().numpy()
        assert np.median(np.abs(singles - want).max(-1)) < 1e-4


@pytest.mark.parametrize("case", ["block", "block-moe", "channel-fused"])
def test_as_int8_devices_agree_and_little_is_lost(case: str, tmp_path: Path, device: Device) -> None:
    fp8, _ = make(case, tmp_path)
    prompt = np.random.default_rng(5).integers(3, VOCAB, 40).tolist()
    model = load_model(open_checkpoint(fp8), device, float8="int8")
    got = Driver(model, device).logits(prompt)
    reference = ReferenceDevice()
    exact = Driver(load_model(open_checkpoint(fp8), reference), reference).logits(prompt)
    error = np.abs(got - exact).mean() / exact.std()
    assert 1e-4 < error < 0.05
    again = Driver(load_model(open_checkpoint(fp8), device, float8="int8"), device).logits(prompt, chunk=7)
    np.testing.assert_array_equal(got, again)


def test_transformers_dequantises_to_the_same_numbers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fp8, plain = make("block", tmp_path, hidden_size=256, intermediate_size=384, num_attention_heads=8)  # whole blocks
    settings(fp8, quantization_config=CASES["block"][4] | {"dequantize": True})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = transformers.AutoModelForCausalLM.from_pretrained(fp8, dtype=torch.float32)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"transformers cannot dequantise here: {error}")
    written = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).state_dict()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(value.float(), written[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        ("awq", "packed by 'awq'"),
        ({"quant_method": "gptq", "bits": 4}, "packed by 'gptq'"),
        ({"quant_method": "fp8", "fmt": "e3m4"}, "the fmt 'e3m4'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "multiples of 128"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "packed by 'modelopt'"),
        (group("tensor") | {"format": "pack-quantized"}, "'pack-quantized'"),
        (group("group"), "strategy 'group'"),
        (group("tensor", num_bits=4), "not symmetric 8-bit floats"),
        (group("tensor", type="int"), "not symmetric 8-bit floats"),
    ],
)
def test_variants_that_are_not_read(packed: Any, words: str, tmp_path: Path) -> None:
    tiny_model("llama", tmp_path, seed=1)
    settings(tmp_path, quantization_config=packed)
    with pytest.raises((BadInput, Unsupported), match=words):
        examine(open_checkpoint(tmp_path))


def test_scales_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    fp8, _ = make("block", tmp_path)
    file = fp8 / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight_scale_inv"

    def said(change: Any) -> str:
        held = dict(tensors)
        if change is None:
            del held[name]
        else:
            held[name] = change
        save_file(held, file, {"format": "pt"})
        with pytest.raises((BadInput, Unsupported)) as error:
            load_model(open_checkpoint(fp8), ReferenceDevice())
        return str(error.value)

    assert "has no scale" in said(None)
    assert "one for each row, or (2, 3)" in said(torch.ones(3, 3))
    assert "must be F32, BF16 or F16" in said(torch.ones(2, 3, dtype=torch.int32))
    assert "not a finite number" in said(torch.full((2, 3), float("inf")))
