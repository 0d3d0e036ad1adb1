"""FP8 folders written here load here, in transformers, and back into other formats, with the same numbers."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import Unsupported
from edgewise.convert.converting import convert
from edgewise.convert.off_grid import spread_weights
from edgewise.embedded import embedded_model
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.models import load_model
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import VOCAB, tiny_model
from edgewise.weights import open_checkpoint

SIZES = {"hidden_size": 160, "intermediate_size": 272, "num_attention_heads": 5}
PROMPT = np.random.default_rng(5).integers(3, VOCAB, 30).tolist()


def logits(folder: Path) -> np.ndarray:
    device = ReferenceDevice()
    return np.array(Driver(load_model(open_checkpoint(folder), device), device).logits(PROMPT))


@pytest.mark.parametrize(("quant", "most"), [("fp8_e4m3", 0.12), ("fp8_e5m2", 0.24)])
@pytest.mark.parametrize("architecture", ["llama", "qwen3_moe"])
def test_there_and_back(architecture: str, quant: str, most: float, tmp_path: Path) -> None:
    tiny_model(architecture, tmp_path / "plain", seed=2, **SIZES)
    written = convert(tmp_path / "plain", tmp_path / "fp8", quant=quant)
    assert written.formats[quant.replace("fp8", "F8").upper()] > 0
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())["quantization_config"]
    assert config["fmt"] == quant[4:]
    assert "lm_head" in config["modules_to_not_convert"]
    before, after = logits(tmp_path / "plain"), logits(tmp_path / "fp8")
    assert 0.002 < np.abs(after - before).mean() / before.std() < most
    convert(tmp_path / "fp8", tmp_path / "f32", quant="f32", to="safetensors")
    assert "quantization_config" not in json.loads((tmp_path / "f32" / "config.json").read_text())
    convert(tmp_path / "fp8", tmp_path / "f32.gguf", quant="f32")
    np.testing.assert_allclose(logits(tmp_path / "f32.gguf"), logits(tmp_path / "f32"), atol=1e-5)
    assert np.abs(logits(tmp_path / "f32") - after).mean() < 0.01 * after.std()  # inputs are not rounded to BF16 there
    with pytest.raises(Unsupported, match="GGUF has no FP8"):
        convert(tmp_path / "plain", tmp_path / "x.gguf", quant=quant)
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.oracle
def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 8}  # whole blocks
    tiny_model("llama", tmp_path / "plain", seed=2, **sizes)
    convert(tmp_path / "plain", tmp_path / "fp8", quant="fp8_e4m3")
    convert(tmp_path / "fp8", tmp_path / "f32", quant="f32", to="safetensors")
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())
    config["quantization_config"]["dequantize"] = True
    (tmp_path / "fp8" / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = (
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).state_dict()
            for name in ("fp8", "f32")
        )
    for name, value in theirs.items():
        torch.testing.assert_close(value.float(), ours[name], rtol=1e-6, atol=0)


def test_spread_weights_are_the_same_function_on_no_grid(tmp_path: Path) -> None:
    spread_weights(embedded_model(), tmp_path / "spread.gguf")
    convert(embedded_model(), tmp_path / "plain.gguf", quant="f32")
    device = ReferenceDevice()
    both = []
    for name in ("plain", "spread"):
        model = load_model(open_checkpoint(tmp_path / f"{name}.gguf"), device)
        both.append(np.array(Driver(model, device).logits(PROMPT[:8])))
    assert not np.array_equal(both[0], both[1])
    assert np.abs(both[0] - both[1]).max() < 1e-3
