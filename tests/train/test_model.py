"""The family's model against transformers' and the engine's on random weights, and the layouts it is saved in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgewise.base import BadInput
from edgewise.serve.llm import LLM
from edgewise.train import encoder
from edgewise.train.export import export, folder_of, load_model
from edgewise.train.hf import load_hf, save_hf, save_tensors
from edgewise.train.model import Note, Past, Transformer
from edgewise.train.objectives import balance_loss, pupil_loss, zeros_loss
from edgewise.train.recipe import Recipe
from edgewise.train.tokenizer import load_tokenizer, save_tokenizer
from edgewise.weights import open_checkpoint

LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {}, "relu": {"act": "relu"}, "qwen3_moe": {"experts": 4},
    "smallthinker": {"experts": 4, "early_router": True, "act": "relu"},
}  # fmt: skip


def random_model(recipe: Recipe, **changes: Any) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(replace(recipe.model, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1 if parameter.ndim == 1 else 0.0, 0.2)
    return model.eval()


@pytest.mark.oracle
@pytest.mark.parametrize("heads", [(32, 4, 2, 8), (36, 3, 1, 16), (40, 5, 5, 4)])
@pytest.mark.parametrize("layout", ["llama", "relu", "qwen3_moe"])
def test_logits_equal_transformers(recipe: Recipe, tmp_path: Path, heads: tuple[int, ...], layout: str) -> None:
    from transformers import AutoModelForCausalLM

    sizes = {"dim": heads[0], "heads": heads[1], "kv_heads": heads[2], "head_dim": heads[3]}
    model = random_model(recipe, **sizes, **LAYOUTS[layout])
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32, shard_bytes=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.randint(0, model.shape.vocab, (2, 31))
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded(recipe: Recipe, tmp_path: Path, layout: str) -> None:
    model = random_model(recipe, **LAYOUTS[layout])
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32)
    again = load_hf(tmp_path)
    assert again.shape == model.shape
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(BadInput, match="no trained model"):
        load_hf(tmp_path / "elsewhere")


def test_a_token_sees_only_what_came_before(recipe: Recipe) -> None:
    model = random_model(recipe)
    ids = torch.randint(0, model.shape.vocab, (1, 12))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 1) % model.shape.vocab
    with torch.no_grad():
        before, after = model(ids)[0], model(other)[0]
    assert torch.allclose(before[:8], after[:8], atol=1e-6)
    assert not torch.allclose(before[8:], after[8:], atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_remembered_past_changes_nothing(recipe: Recipe, layout: str) -> None:
    model = random_model(recipe, **LAYOUTS[layout])
    ids, past = torch.randint(0, model.shape.vocab, (1, 12)), Past(model.shape.layers)
    with torch.no_grad():
        parts = torch.cat([model(part, past) for part in ids.split([5, 1, 4, 2], 1)], 1)
        assert torch.allclose(parts, model(ids), atol=1e-5)


@pytest.mark.native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_engine_computes_the_same(recipe: Recipe, data_folder: Path, tmp_path: Path, layout: str) -> None:
    model = random_model(recipe, **LAYOUTS[layout])
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32)
    save_tokenizer(load_tokenizer(data_folder), tmp_path, model.shape.context)
    ids = torch.randint(0, model.shape.vocab, (1, 20))
    with torch.no_grad():
        ours = model(ids)[0].numpy()
    theirs = LLM(tmp_path).logits(ids[0].tolist())
    assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(ours).max()


@pytest.mark.parametrize("layout", ["llama", "qwen3_moe"])
def test_gguf_holds_the_model_and_the_tokenizer(recipe: Recipe, data_folder: Path, tmp_path: Path, layout: str) -> None:
    model = random_model(recipe, **LAYOUTS[layout])
    save_hf(model.state_dict(), model.shape, tmp_path / "model", bos=0, eos=1, dtype=torch.float32)
    save_tokenizer(load_tokenizer(data_folder), tmp_path / "model", 32)
    size = export(tmp_path / "model", tmp_path / "tiny.gguf", model.shape, "edgewise-tiny")
    assert open_checkpoint(tmp_path / "tiny.gguf").header().name == "edgewise-tiny"
    assert size == (tmp_path / "tiny.gguf").stat().st_size
    again = load_model(tmp_path / "tiny.gguf")
    assert again.shape.layout == layout
    for name, value in model.state_dict().items():
        assert (again.state_dict()[name] - value).abs().max() <= value.abs().max() / 100, name
    with folder_of(tmp_path / "tiny.gguf") as folder:
        text = "def f(x):\n    return '<|user|>' + x  # 123\n"
        assert load_tokenizer(folder).encode(text).ids == load_tokenizer(data_folder).encode(text).ids


def test_gguf_refuses_what_it_cannot_say(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot say"):
        export(tmp_path, tmp_path / "sparse.gguf", replace(recipe.model, act="relu"))


def test_balance_is_least_when_all_experts_are_used_alike() -> None:
    alike = torch.full((8, 4), 0.25)
    nothing = torch.zeros(0)
    even = Note(nothing, alike, torch.arange(8)[:, None] % 4, nothing)
    one = torch.zeros(8, 4)
    one[:, 0] = 1.0
    uneven = Note(nothing, one, torch.zeros(8, 1, dtype=torch.long), nothing)
    assert balance_loss([even]).item() == pytest.approx(1.0)
    assert balance_loss([uneven]).item() == pytest.approx(4.0)


def test_the_router_is_never_rounded(recipe: Recipe) -> None:
    model = random_model(recipe, **LAYOUTS["qwen3_moe"])
    ids = torch.randint(0, model.shape.vocab, (2, 9))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        note = model.states(ids)[1][0]
    again = torch.nn.functional.linear(note.read.float(), model.model.layers[0].mlp.gate.weight).softmax(-1)
    assert note.probs.dtype == torch.float32
    assert torch.equal(note.probs, again)


def test_zeros_are_pulled_until_there_are_enough() -> None:
    nothing = torch.zeros(0)
    half = Note(nothing, nothing, nothing, torch.tensor([[0.0, 2.0]]))
    assert zeros_loss([half], 0.9).item() == pytest.approx(0.4)
    assert zeros_loss([half], 0.5).item() == 0.0
    first, last = (Note(nothing, nothing, nothing, torch.tensor([row])) for row in ([2.0, 0.0], [0.0, 2.0]))
    assert zeros_loss([first], 0.9, skew=1.0).item() == 0.0  # hot neurons are left alone
    assert zeros_loss([last], 0.9, skew=1.0).item() == pytest.approx(0.8)


def test_a_pupil_learns_its_teacher(recipe: Recipe) -> None:
    teacher, pupil = random_model(recipe), random_model(recipe, dim=16)
    ids = torch.randint(0, recipe.model.vocab, (4, 16))
    with torch.no_grad():
        taught = teacher(ids)
    least = -(taught.softmax(-1) * taught.log_softmax(-1)).sum(-1).mean()
    assert pupil_loss(taught, taught, ids).item() == pytest.approx(least.item(), rel=1e-4)
    assert pupil_loss(pupil(ids), taught, ids) > least


@pytest.mark.oracle
def test_the_encoder_is_a_bert(recipe: Recipe, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    torch.manual_seed(1)
    model = encoder.Encoder(replace(recipe.model, kv_heads=4)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    save_tensors(model.state_dict(), tmp_path, torch.float32)
    (tmp_path / "config.json").write_text(json.dumps(encoder.config_of(model.shape)))
    theirs = BertForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ids, mask = encoder.batch_of([[0, 5, 6, 7], [0, 9]])
    with torch.no_grad():
        assert torch.allclose(model(ids, mask), theirs(ids, attention_mask=mask).logits, atol=1e-4, rtol=1e-4)
    assert encoder.load(tmp_path).shape == model.shape
