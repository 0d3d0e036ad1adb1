"""What a calibration sees is what the weights meet, and a model with folded scales is the same model."""

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.convert.calibrating import Calibration
from edgewise.convert.converting import convert
from edgewise.convert.folding import Folding
from edgewise.convert.gguf_metadata import gguf_metadata, settled
from edgewise.convert.gguf_tokenizer import gguf_tokenizer
from edgewise.convert.models import as_gguf, describe, gguf_recorder
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantising import Narrowing, inputs_of
from edgewise.convert.writing import Order, save_gguf
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import ARCHITECTURES, tiny_model
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

pytestmark = pytest.mark.native
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
IDS = np.random.default_rng(0).integers(3, 259, 70).tolist()


def described(folder):
    checkpoint = open_checkpoint(folder)
    return checkpoint, describe(checkpoint, SOURCES.build("file", files=checkpoint.header().files))


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_matrix_is_heard(kind, tmp_path):
    checkpoint, model = described(tiny_model(kind, tmp_path / "m"))
    calibration = Calibration(checkpoint, IDS, hessian=True, device="reference")
    columns = {w.name: w.shape[-1] for w in model.recorder.wanted}
    for name in dict.fromkeys(inputs_of(gguf_recorder(model), model.spec.tied).values()):
        seen = calibration.of(name)
        if name.endswith(("experts.down", "shared.down")):
            assert seen is None
            continue
        assert seen is not None, name
        assert seen.size.shape == seen.square.shape == (columns[name],)
        np.testing.assert_allclose(seen.hessian.diagonal(), seen.square, rtol=1e-4, atol=1e-9)
        assert (seen.size**2 <= seen.square * 1.0001).all()
        assert seen.tokens > 0


def test_the_first_layer_meets_the_normalised_embedding(tmp_path):
    folder = tiny_model("llama", tmp_path / "m", **SHAPE)
    checkpoint, _ = described(folder)
    seen = Calibration(checkpoint, IDS, hessian=True, device="reference").of("layers.0.q")
    parts = LLM(folder, device="reference").parts
    x = parts.model.table.values[IDS]
    x = parts.device.rms_norm(x, parts.model.layers[0].attn_norm, parts.spec.eps)
    np.testing.assert_allclose(seen.hessian, x.T @ x / len(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.size, np.abs(x).mean(0), rtol=1e-5)


def test_devices_agree_and_going_back_changes_nothing(tmp_path):
    checkpoint, _ = described(tiny_model("qwen2", tmp_path / "m", **SHAPE))
    first, second = (Calibration(checkpoint, IDS, hessian=False, device=device) for device in ("cpu", "reference"))
    for name in ("layers.1.down", "layers.0.o", "embed", "layers.1.gate"):
        np.testing.assert_allclose(first.of(name).square, second.of(name).square, rtol=2e-3, atol=1e-6)
    assert first.of("layers.0.nothing") is None


def test_texts_of_one_token_are_refused(tmp_path):
    checkpoint, _ = described(tiny_model("llama", tmp_path / "m"))
    with pytest.raises(BadInput, match="calibration text has 1 token"):
        Calibration(checkpoint, [5], hessian=False)


@pytest.mark.parametrize("kind", sorted(set(ARCHITECTURES) - {"bitnet", "smallthinker"}))  # refused in GGUF
def test_folded_scales_leave_the_model_as_it_was(kind, tmp_path):
    folder = tiny_model(kind, tmp_path / "m")
    _, model = described(folder)
    rng = np.random.default_rng(3)
    asked = []

    def find(fold):
        asked.append(fold.key)
        return fold.tied(np.exp(rng.standard_normal(fold.matrices[0].shape[-1])).astype(np.float32))

    folding = Folding(gguf_recorder(model), model.spec, find)
    order = Order(tmp_path / "folded.gguf", QUANTISERS.build("none"))
    metadata = settled(model.spec, gguf_metadata(model.spec, "m", None)) | gguf_tokenizer(model.header, 259)
    save_gguf(metadata, as_gguf(model), order, 2, lambda *_: Narrowing(order.quantiser, folding=folding))
    assert len(asked) == len(set(asked))
    assert asked
    before, after = (LLM(path, device="reference").logits(IDS[:24]) for path in (folder, order.path))
    np.testing.assert_allclose(before, after, rtol=1e-3, atol=1e-3 * np.abs(before).max())
    changed = [n for n in open_checkpoint(order.path).names() if "attn_v" in n or "attn_qkv" in n]
    assert changed


@pytest.mark.parametrize("quantiser", ["awq:steps=3", "gptq", "rtn"])
@pytest.mark.parametrize("kind", ["llama", "phi3", "gemma2", "mixtral", "olmo2"])
def test_calibrated_files_run(kind, quantiser, tmp_path):
    """Every architecture's layout goes through calibration, folding and narrowing; the text comes out much the same."""
    folder = tiny_model(kind, tmp_path / "m", **SHAPE)
    words = "".join(chr(40 + i % 60) for i in IDS) * 3
    convert(folder, tmp_path / "q.gguf", quant="q8_0", quantiser=quantiser, calibrate=words)
    before, after = (LLM(path).logits(IDS[:24]) for path in (folder, tmp_path / "q.gguf"))
    share = 0.05 if kind == "mixtral" else 0.01  # a token may go to another expert
    assert np.square(before - after).mean() < share * np.square(before).mean()
