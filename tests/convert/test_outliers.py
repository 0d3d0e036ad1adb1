"""Outliers without another function: equal bits in float32, and a clear word where it cannot be done."""

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.convert.converting import convert
from edgewise.convert.outliers import inject_outliers
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outliers")
    convert(tiny_model("llama", folder / "hf"), folder / "plain.gguf", quant="f32")
    return folder / "plain.gguf"


def logits(path, tokens=(1, 5, 9, 2, 7)):
    return np.concatenate(list(LLM(path, max_num_seqs=1).logits_chunks(list(tokens))))


def test_the_logits_keep_their_bits_and_a_norm_has_a_loud_channel(plain, tmp_path):
    inject_outliers(plain, tmp_path / "loud.gguf", factor=64)
    assert np.array_equal(logits(plain), logits(tmp_path / "loud.gguf"))

    class Watching:
        def __init__(self, path):
            self.header = open_checkpoint(path).header()
            raw = self.header.files[0].read_bytes()
            info = open_checkpoint(path).info("blk.0.attn_norm.weight")
            at = info.extent.offset
            self.norm = np.frombuffer(raw[at : at + info.extent.nbytes], np.float32)

    before, after = Watching(plain).norm, Watching(tmp_path / "loud.gguf").norm
    assert np.count_nonzero(after != before) == 1
    assert (after / before).max() == 64


@pytest.mark.parametrize(("share", "factor"), [(0.0, 64), (1.0, 64), (0.01, 50), (0.01, 0)])
def test_settings_that_would_change_the_function_are_refused(plain, tmp_path, share, factor):
    with pytest.raises(BadInput, match="power of two"):
        inject_outliers(plain, tmp_path / "never.gguf", share=share, factor=factor)
    assert not list(tmp_path.iterdir())


def test_models_it_cannot_do_are_refused(tmp_path):
    folder = tiny_model("mixtral", tmp_path / "hf")
    with pytest.raises(Unsupported, match="GGUF"):
        inject_outliers(folder, tmp_path / "never.gguf")
    convert(folder, tmp_path / "moe.gguf", quant="f32")
    with pytest.raises(Unsupported, match="dense"):
        inject_outliers(tmp_path / "moe.gguf", tmp_path / "never.gguf")
    assert not (tmp_path / "never.gguf").exists()
