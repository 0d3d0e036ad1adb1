"""Our own formats in a safetensors folder: what was narrowed is what is read, and what does not fit is refused."""

import json

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.convert.converting import convert
from edgewise.kernels import formats
from edgewise.serve.cli import main
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

pytestmark = pytest.mark.native
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}


def read(path, name):
    checkpoint = open_checkpoint(path)
    info = checkpoint.info(name)
    source = SOURCES.build("file", files=checkpoint.header().files)
    raw = np.frombuffer(source.read(info.extent, 0, info.extent.nbytes), np.uint8)
    source.close()
    return info, formats.dequantize(info.format, raw, int(np.prod(info.shape))).reshape(info.shape)


@pytest.mark.parametrize("fmt", sorted(formats.OWN))
def test_what_was_narrowed_is_what_is_read(fmt, tmp_path):
    folder = tiny_model("llama", tmp_path / "m", **SHAPE)
    assert main(["convert", str(folder), "-o", str(tmp_path / "o"), "-q", f"{fmt}:group=32"]) == 0
    name = "model.layers.1.mlp.down_proj.weight"
    _, plain = read(folder, name)
    info, narrowed = read(tmp_path / "o", name)
    assert (info.format, info.shape) == (f"{fmt}:group=32", (64, 96))
    packed = formats.quantize(info.format, plain)
    np.testing.assert_array_equal(narrowed, formats.dequantize(info.format, packed, plain.size).reshape(plain.shape))
    norm, _ = read(tmp_path / "o", "model.norm.weight")
    assert norm.format == read(folder, "model.norm.weight")[0].format
    with LLM(tmp_path / "o") as ours, LLM(tmp_path / "o", device="reference") as reference:
        one, other = (llm.logits([1, 5, 9, 7]) for llm in (ours, reference))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("quantiser", ["rtn:clip=True", "hqq", "awq", "gptq"])
def test_every_quantiser_writes_them_from_gguf_and_from_hf(quantiser, tmp_path):
    folder = tiny_model("llama", tmp_path / "m", **SHAPE)
    convert(folder, tmp_path / "m.gguf", quant="f32")
    for i, source in enumerate((folder, tmp_path / "m.gguf")):
        convert(source, tmp_path / f"{i}", quant="int3:group=32", quantiser=quantiser, calibrate="some words " * 40)
    config = json.loads((tmp_path / "0" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "edgewise"
    assert set(config["formats"].values()) == {"int3:group=32"}
    with LLM(tmp_path / "0") as one, LLM(tmp_path / "1") as other:
        assert len(config["formats"]) == 2 * 7 + 1 + (not one.parts.spec.tied)
        a, b = (llm.logits([1, 5, 9, 7]) for llm in (one, other))
    np.testing.assert_allclose(a, b, atol=2e-2)  # rows of q and k are in another order, so sums round differently


def test_routers_stay_floats_and_odd_columns_take_a_smaller_group(tmp_path):
    folder = tiny_model("qwen2_moe", tmp_path / "m")
    convert(folder, tmp_path / "o", quant="int4:group=128")
    checkpoint = open_checkpoint(tmp_path / "o")
    held = {name: checkpoint.info(name).format for name in checkpoint.names()}
    routers = [fmt for name, fmt in held.items() if name.endswith(("mlp.gate.weight", "shared_expert_gate.weight"))]
    assert routers
    assert not any(fmt.startswith("int") for fmt in routers)
    for name, fmt in held.items():
        columns = checkpoint.info(name).shape[-1]
        if fmt.startswith("int4"):
            assert columns % int(fmt.rpartition("=")[2]) == 0
    assert any(fmt.startswith("int4") for fmt in held.values())


def test_they_convert_on_but_not_into_gguf(tmp_path):
    folder = tiny_model("llama", tmp_path / "m", **SHAPE)
    convert(folder, tmp_path / "o", quant="int8:group=32")
    convert(tmp_path / "o", tmp_path / "copy")
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (tmp_path / "o/model.safetensors").read_bytes()
    convert(tmp_path / "o", tmp_path / "back", quant="f32")
    assert "quantization_config" not in json.loads((tmp_path / "back/config.json").read_text())
    for quant in (None, "int4"):
        with pytest.raises(Unsupported, match="GGUF has no int"):
            convert(tmp_path / "o", tmp_path / "x.gguf", quant=quant)
    convert(tmp_path / "o", tmp_path / "y.gguf", quant="q8_0")
    with pytest.raises(BadInput, match="groups of 32, 64, 128"):
        convert(folder, tmp_path / "z", quant="int4:group=48")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"formats": None}, "must be an object"),
        ({"formats": {"nothing": "int4:group=32"}}, "no such tensor"),
        ({"formats": {"model.norm.weight": "int4:group=32"}}, "stored as rows of U8"),
        ({"formats": {"model.embed_tokens.weight": "int4:group=128"}}, "stored as rows of U8"),
        ({"formats": {"model.embed_tokens.weight": "Q4_0"}}, "must be one of"),
        ({"formats": {"model.embed_tokens.weight": 4}}, "must be one of"),
        ({"formats": {"model.embed_tokens.weight": "int4:group=7"}}, "groups of"),
        ({"quant_method": "other"}, "packed by 'other'"),
    ],
)
def test_a_config_that_lies_is_refused(change, words, tmp_path):
    folder = tiny_model("llama", tmp_path / "m", **SHAPE)
    convert(folder, tmp_path / "o", quant="int4:group=32")
    path = tmp_path / "o" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises((BadInput, Unsupported), match=words):
        LLM(tmp_path / "o")
