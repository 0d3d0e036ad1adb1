"""The trained members that are kept: each loads in the engine and in transformers, says the same there, has a card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.embedded import embedded_draft, embedded_model
from edgewise.serve.llm import LLM
from edgewise.train import encoder
from edgewise.train.export import folder_of, load_model
from edgewise.train.recipe import members

KEPT = Path(__file__).parents[1] / "data" / "models"
FOLDERS = [embedded_draft().parent, *sorted(folder for folder in KEPT.glob("*") if folder.is_dir())]
TEXT = "def read_lines(path):\n    with open(path) as file:\n        return file.read()"


def weights_of(folder: Path) -> Path:
    return next(iter(folder.glob("*.gguf")), folder)


def languages() -> list[Path]:
    return [embedded_model().parent, *(folder for folder in FOLDERS if folder.name != "enc")]


def test_the_family_is_small_enough() -> None:
    files = [file for folder in FOLDERS for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in [*files, embedded_model()]) <= 40_000_000
    assert embedded_model().stat().st_size <= 12_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_member_has_a_recipe_and_a_card(folder: Path) -> None:
    assert folder.name in members()
    card = (folder / "README.md").read_text()
    for part in ("**Data.**", "**Model.**", "**Training.**", "**Limits.**", "**Licence.**"):
        assert part in card


@pytest.mark.native
@pytest.mark.parametrize("folder", languages(), ids=lambda folder: folder.name)
def test_the_engine_and_torch_say_the_same(folder: Path) -> None:
    model, llm = load_model(weights_of(folder)), LLM(weights_of(folder))
    ids = llm.tokenize(TEXT)
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0].numpy()
    theirs = llm.logits(ids)
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(ours).max()  # activations are int8 in the engine
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() >= 0.9


IDS = torch.randint(32, 6000, (1, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.oracle
def test_transformers_agrees_with_the_encoder() -> None:
    from transformers import BertForSequenceClassification

    if KEPT / "enc" not in FOLDERS:
        pytest.skip("the encoder is not kept yet")
    bert = BertForSequenceClassification.from_pretrained(KEPT / "enc", dtype=torch.float32).eval()
    with torch.no_grad():
        ours = encoder.load(KEPT / "enc")(IDS, torch.ones_like(IDS))
        assert torch.allclose(ours, bert(IDS).logits, atol=1e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("folder", languages(), ids=lambda folder: folder.name)
def test_transformers_says_the_same(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    if folder.name == "moe-pre":
        pytest.skip("transformers has no SmallThinker")
    file, ours = weights_of(folder), load_model(weights_of(folder))
    with folder_of(file) as floats, torch.no_grad():
        if folder.name == "moe":  # of a GGUF file transformers does not read how wide an expert is
            theirs = AutoModelForCausalLM.from_pretrained(floats, dtype=torch.float32).eval()
        else:
            more = {"gguf_file": file.name} if file.is_file() else {}
            theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more).eval()
        assert torch.allclose(ours(IDS), theirs(IDS).logits, atol=1e-3, rtol=1e-3)
