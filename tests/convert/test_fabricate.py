"""Fabricated models: whole, repeatable, the same in every container, and of any architecture."""

import json

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.convert.fabricating import fabricate
from edgewise.convert.mixes import MIXES, choose, find_mix
from edgewise.convert.shapes import SHAPES
from edgewise.convert.vocabulary import make_tokenizer
from edgewise.kernels import formats
from edgewise.models import read_spec
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import ARCHITECTURES, tiny_config
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Header

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.native


def config_file(tmp_path, architecture="llama", **settings):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_config(architecture, **{"vocab_size": 400, **settings})))
    return path


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"bitnet", "smallthinker"}))  # refused in GGUF
def test_any_config_becomes_a_model_that_loads_and_says_the_same_in_both_containers(architecture, tmp_path):
    config = config_file(tmp_path, architecture)
    fabricate(tmp_path / "hf", config=config, quant="f32")
    fabricate(tmp_path / "model.gguf", config=config, quant="f32")
    first, second = LLM(tmp_path / "hf", device="reference"), LLM(tmp_path / "model.gguf", device="reference")
    ids = first.tokenize("The tree ate 12 stones.\n")
    assert ids == second.tokenize("The tree ate 12 stones.\n")
    assert first.detokenize(ids) == "The tree ate 12 stones.\n"
    rows = first.logits(ids)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows, second.logits(ids))


def test_seeds_and_layers(tmp_path):
    files = {}
    for name, kwargs in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"layers": 3}}.items():
        fabricate(tmp_path / f"{name}.gguf", config=config_file(tmp_path), **kwargs)
        files[name] = (tmp_path / f"{name}.gguf").read_bytes()
    assert files["a"] == files["b"] != files["c"]
    assert open_checkpoint(tmp_path / "d.gguf").header().config["llama.block_count"] == 3


def test_weights_are_what_they_claim(tmp_path):
    fabricate(tmp_path / "m.gguf", config=config_file(tmp_path, hidden_size=96, head_dim=32), quant="f32")
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        if "norm" in tensor.name:
            assert (tensor.data == 1).all()
        elif tensor.data.size > 20000:
            assert abs(float(tensor.data.std()) - 0.02) < 4e-4
            assert abs(float(tensor.data.mean())) < 4e-4


def test_biases_that_settings_ask_for_are_there(tmp_path):
    fabricate(tmp_path / "m", config=config_file(tmp_path, attention_bias=True, mlp_bias=True))
    names = open_checkpoint(tmp_path / "m").names()
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        assert f"model.layers.0.{part}.bias" in names
    LLM(tmp_path / "m", device="reference").logits([1, 2, 3])


def test_named_shapes_are_the_real_ones():
    sizes = {}
    for name, shape in SHAPES.items():
        spec = read_spec(Header("hf", shape.config["model_type"], shape.config, (), None, {}, name))
        attention = spec.dim * spec.head_dim * (2 * spec.heads + 2 * spec.kv_heads)
        ffn = 3 * spec.dim * spec.ffn_dim * max(spec.experts, 1)
        sizes[name] = round((spec.vocab * spec.dim * (1 if spec.tied else 2) + spec.layers * (attention + ffn)) / 1e6)
    assert sizes == {
        "llama-3.2-1b": 1236, "qwen2.5-0.5b": 494, "olmoe-1b-7b": 6917, "stories-110m": 110, "stories-15m": 15,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["stories-15m", "qwen2.5-0.5b"])
def test_a_named_shape_with_one_layer(name, tmp_path):
    written = fabricate(tmp_path / "m.gguf", shape=name, quant="q4_k_m", layers=1)
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    assert checkpoint.header().config["tokenizer.ggml.pre"] == SHAPES[name].pre
    assert len(checkpoint.header().config["tokenizer.ggml.tokens"]) == SHAPES[name].config["vocab_size"]
    assert "Q8_0" in written.formats  # 288 and 896 columns are no whole blocks of 256
    assert written.notices


@pytest.mark.parametrize("vocab", [259, 260, 1000, 32000])
def test_vocabularies_are_full_and_lossless(vocab):
    tokenizer = make_tokenizer(vocab, "llama-bpe")
    assert tokenizer.get_vocab_size() == vocab
    text = "Hello wörld, the 12345 trees\n\tare 日本 🦙!"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    if vocab > 1000:
        assert len(tokenizer.encode(" the tree")) < 5


def test_refusals(tmp_path):
    for kwargs, error, words in (
        ({"shape": "lama-3.2-1b"}, Unsupported, "Did you mean 'llama-3.2-1b'"),
        ({}, BadInput, "--config"),
        ({"shape": "stories-15m", "quant": "q9"}, Unsupported, "no quantisation"),
        ({"shape": "stories-15m", "layers": 0}, BadInput, "--layers"),
        ({"shape": "stories-15m", "quant": "q4_0", "to": "safetensors"}, Unsupported, "only f32, f16, bf16, fp8"),
    ):
        with pytest.raises(error, match=words):
            fabricate(tmp_path / "out", **kwargs)
    for settings, error, words in (
        ({"vocab_size": 100}, BadInput, "vocab_size"),
        ({"model_type": "mamba"}, Unsupported, "mamba"),
        ({"num_attention_heads": None}, BadInput, "num_attention_heads"),
    ):
        with pytest.raises(error, match=words):
            fabricate(tmp_path / "out", config=config_file(tmp_path, **settings))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json"]


def test_mixes():
    """Every mix names formats that can be written, and puts them where its description says."""
    for mix in MIXES.values():
        assert {f for f in (mix.usual, mix.head, mix.better) if f} <= set(formats.writable())
    q4 = find_mix("Q4_K")
    assert q4 is find_mix("q4_k_m")
    at = {"layers": 16, "tied": False}
    assert choose(q4, "blk.0.attn_norm.weight", (2048,), **at) == "F32"
    assert choose(q4, "blk.0.ffn_gate_inp.weight", (64, 2048), **at) == "F32"
    assert choose(q4, "output.weight", (1000, 2048), **at) == "Q6_K"
    assert choose(q4, "token_embd.weight", (1000, 2048), **at) == "Q4_K"
    assert choose(q4, "token_embd.weight", (1000, 2048), layers=16, tied=True) == "Q6_K"
    better = [i for i in range(16) if choose(q4, f"blk.{i}.ffn_down.weight", (2048, 8192), **at) == "Q6_K"]
    assert better == [0, 1, 4, 7, 10, 13, 14, 15]
    assert choose(q4, "blk.0.ffn_up.weight", (2048, 896), **at) == "Q8_0"
    assert choose(q4, "blk.0.ffn_up.weight", (2048, 90), **at) == "F16"
