"""Inflated models: the size that was asked for, the same logits, nothing that could be skipped."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgewise.base import BadInput, SamplingParams, Unsupported
from edgewise.convert.converting import convert
from edgewise.convert.inflating import GIB, inflate, shares, shifted
from edgewise.convert.rows import StoredRows, row_count, values
from edgewise.embedded import embedded_model
from edgewise.kernels import formats
from edgewise.models import read_spec
from edgewise.models.neurons.predictor import FILE, read_heads
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

PROMPT = [1, 40, 99, 7, 180, 22, 5, 64]


def logits(model: Path) -> np.ndarray:
    return LLM(model, device="reference").logits(PROMPT)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "qwen3_moe", "mistral"])
@pytest.mark.parametrize("times", [5, 40])
def test_logits_stay(architecture: str, times: int, tmp_path: Path) -> None:
    model = tiny_model(architecture, tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").stat().st_size
    written = inflate(model, tmp_path / "large.gguf", gib=times * before / GIB)
    assert abs(written.nbytes / (times * before) - 1) < 0.35  # in steps of one more copy of every neuron
    small, large = logits(model), logits(tmp_path / "large.gguf")
    assert np.abs(small - large).max() <= 1e-5 * np.abs(small).max()
    assert (small.argmax(-1) == large.argmax(-1)).all()


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_keeps_its_relu_and_its_predictor(tied: bool, tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", hidden_act="relu", dtype="BF16", tie_word_embeddings=tied)
    rng = np.random.default_rng(0)
    heads = {"layers.0.in": (8, 48), "layers.0.out": (80, 8), "layers.0.bias": (80,)}
    save_file({n: rng.standard_normal(s).astype(np.float32) for n, s in heads.items()}, model / FILE)
    before = (model / "model.safetensors").stat().st_size
    inflate(model, tmp_path / "large", gib=40 * before / GIB)
    small, large = logits(model), logits(tmp_path / "large")
    assert np.abs(small - large).max() <= 1e-2 * np.abs(small).max()  # rounded to BF16, and added up in another order
    spec = read_spec(open_checkpoint(tmp_path / "large").header())
    assert spec.extra["act"] == "relu"
    copies, neurons = spec.dim // 48, spec.ffn_dim // 80
    assert min(copies, neurons) > 1
    narrow, wide = read_heads(model / FILE), read_heads(tmp_path / "large" / FILE)
    x = rng.standard_normal(48).astype(np.float32)
    # every copy of the stream brings a share of it
    scores = [h["layers.0.out"] @ (h["layers.0.in"] @ y) + h["layers.0.bias"]
              for h, y in ((narrow, x), (wide, np.tile(x / copies, copies)))]  # fmt: skip
    np.testing.assert_allclose(np.tile(scores[0], neurons), scores[1], rtol=1e-4, atol=1e-4)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="from a Llama's folder only"):
        inflate(tiny_model("qwen3", tmp_path / "model"), tmp_path / "large", gib=0.01)


def test_quantised_weights_stay_in_their_format_and_no_row_is_zero(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", hidden_size=64, head_dim=32, intermediate_size=96)
    convert(model, tmp_path / "small.gguf", quant="q8_0", pure=True)
    written = inflate(tmp_path / "small.gguf", tmp_path / "large.gguf", gib=20 * 150_000 / GIB)
    assert set(written.formats) == {"Q8_0", "F32"}
    small, large = logits(tmp_path / "small.gguf"), logits(tmp_path / "large.gguf")
    assert np.abs(small - large).max() <= 1e-3 * np.abs(small).max()
    checkpoint = open_checkpoint(tmp_path / "large.gguf")
    source = SOURCES.build("file", files=checkpoint.header().files)
    for name in checkpoint.names():
        rows = StoredRows(checkpoint.info(name), source)
        assert np.abs(values(rows, 0, row_count(rows))).max(-1).min() > 0, name
    source.close()


@pytest.mark.parametrize(
    "fmt", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"]
)
def test_halving_is_exact(fmt: str) -> None:
    stored = formats.quantize(fmt, np.random.default_rng(0).normal(size=512).astype(np.float32))
    half = formats.dequantize(fmt, shifted(fmt, stored, 2), 512)
    assert np.array_equal(half * 4, formats.dequantize(fmt, stored, 512))


@pytest.mark.parametrize("copies", [1, 2, 3, 5, 8, 13, 100])
def test_shares_add_up_to_one(copies: int) -> None:
    assert len(shares(copies)) == copies
    assert sum(2.0**-n for n in shares(copies)) == 1.0


def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model")
    with pytest.raises(BadInput, match="already"):
        inflate(model, tmp_path / "large.gguf", gib=1e-6)
    with pytest.raises(Unsupported, match="cannot be widened"):
        inflate(tiny_model("gemma2", tmp_path / "gemma"), tmp_path / "large.gguf", gib=0.01)
    assert not (tmp_path / "large.gguf").exists()


def test_the_embedded_model_says_the_same(tmp_path: Path) -> None:
    inflate(embedded_model(), tmp_path / "large.gguf", gib=0.03)
    small, large = logits(embedded_model()), logits(tmp_path / "large.gguf")
    assert np.abs(small - large).max() <= 1e-3 * np.abs(small).max()
    assert (small.argmax(-1) == large.argmax(-1)).all()


def test_what_drafts_for_a_model_is_widened_with_it(tmp_path: Path) -> None:
    notices = inflate(embedded_model(), tmp_path / "large.gguf", gib=0.03).notices
    assert any("which drafts for it" in notice for notice in notices)
    steps = []
    for model in (embedded_model(), tmp_path / "large.gguf"):
        with LLM(model, threads=1, speculator="medusa:nodes=12") as llm:
            llm.generate("def add(a, b):", SamplingParams(temperature=0, max_tokens=32, ignore_eos=True))
            steps.append(llm.parts.engine.steps)
    assert abs(steps[0] - steps[1]) <= 3  # the last bits of logits differ, and with them a close decision, perhaps
    assert steps[0] < 30
