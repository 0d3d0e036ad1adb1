"""The figures: caches, guesses, bodies and drafts counted by hand; the 5-gram model; packages and their licences."""

import math
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.train import evaluation
from edgewise.train.model import Transformer
from edgewise.train.ngram import ngram_nats
from edgewise.train.packages import gather_packages, licence, permissive
from edgewise.train.picture import curves, held_out_losses
from edgewise.train.recipe import Recipe
from edgewise.train.report import differences


def test_lru_by_hand() -> None:
    # 0, 1 | both hit | 2 drives 0 out, 0 drives 1 out | 1 drives 2 out, 0 hits
    assert evaluation.lru_hits([[0, 1], [0, 1], [2, 0], [1, 0]], 2) == 3 / 8
    assert evaluation.lru_hits([[0], [1], [0], [1]], 1) == 0.0


@pytest.mark.parametrize(
    ("continuation", "finished", "body", "ended"),
    [
        ("    return 1\n\nx = 2\n", True, "    return 1\n\n", True),
        ("    return 1\n\nx = 2\n    y", False, "    return 1\n\n", True),
        ("    return 1", True, "    return 1", True),
        ("    a = 1\n    retu", False, "    a = 1\n", False),
        ("    a = 1\n    b = (a,\n      a,\n      a", False, "    a = 1\n", False),
        ('    """Says\n    and says\n    and', False, "", False),
        ("    a = = 1\n    b = (a,\n  a", False, "    a = = 1\n    b = (a,\n", False),  # the mistake stays
        ("    a = 1)\n    b = 1\n    b", False, "    a = 1)\n    b = 1\n", False),
    ],
)
def test_bodies_end_where_the_indentation_does(continuation: str, finished: bool, body: str, ended: bool) -> None:
    assert evaluation.body_of("def f():\n", continuation, finished) == (body, ended)


def test_heads_are_whole_and_short() -> None:
    text = 'import os\n\ndef f(a):\n    """Doc."""\n    b = a\n    return b\n\ndef g():\n    pass\n'
    text += "\ndef h(a): return a\n"
    assert evaluation.simple_functions([text, "def broken(:\n"], 5) == ['def f(a):\n    """Doc."""\n']
    plain = "def f(a):\n    b = a\n    return b\n"
    assert evaluation.simple_functions([plain], 5) == ["def f(a):\n"]
    assert evaluation.simple_functions([plain], 5, documented=True) == []


def test_a_model_accepts_its_own_drafts(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = Transformer(recipe.model).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    found = evaluation.acceptance(model, model, [[1, 2, 3], [4, 5]], tokens=10)
    assert found["acceptance"] == found["rate"] == 1.0
    assert found["tokens_per_pass"] == 5.0
    other = Transformer(recipe.model).eval()
    less = evaluation.acceptance(model, other, [[1, 2, 3]], tokens=10)
    assert less["acceptance"] <= less["rate"] < 1.0
    assert evaluation.agreement(model, model, torch.ones(2, 8, dtype=torch.long)) == 1.0


def test_routing_figures_have_their_bounds(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = Transformer(recipe.changed("model", experts=8, ffn_dim=16).model).eval()
    found = evaluation.routing(model, torch.randint(0, 100, (2, 30)))
    assert all(0 <= bits <= found["most_bits"] + 1e-6 for bits in found["entropy_bits"] + found["use_entropy_bits"])
    assert all(0 <= share <= 1 for share in found["next_layer_recall"] + found["lru_hits"] + found["same_as_before"])
    for layer in model.model.layers:  # one router for all: the next layer is what this one was, if nothing moves
        layer.mlp.gate.weight.data = model.model.layers[0].mlp.gate.weight.data
        for part in (layer.self_attn.o_proj, *(expert.down_proj for expert in layer.mlp.experts)):
            torch.nn.init.zeros_(part.weight)
    assert evaluation.routing(model, torch.randint(0, 100, (1, 30)))["next_layer_recall"] == [1.0]


def test_zeros_are_counted(recipe: Recipe) -> None:
    model = Transformer(recipe.changed("model", act="relu").model).eval()
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.mlp.gate_proj.weight)
        layer.mlp.gate_proj.weight.data[:4] = torch.randn(4, model.shape.dim)
    found = evaluation.sparsity(model, torch.randint(0, 100, (2, 30)))
    assert all(share > 1 - 4 / model.shape.ffn_dim - 1e-6 for share in found["zeros"])
    assert found["top_30_percent_carry"] == pytest.approx([1.0] * model.shape.layers)


def test_ngrams_learn_what_repeats() -> None:
    train = np.tile(np.arange(10, dtype=np.uint16), 50)
    assert ngram_nats(train, train[:40], 10) < 0.1
    noise = np.random.default_rng(0).integers(0, 10, 2000).astype(np.uint16)
    assert ngram_nats(noise[:1000], noise[1000:], 10) > math.log(10) - 0.2
    assert ngram_nats(noise[:1], noise[:2], 6144) == pytest.approx(math.log(6144))
    both = np.concatenate([train[:40], noise[:40]])
    assert ngram_nats(train, both, 10, asked=np.arange(80) < 40) < 0.1 < ngram_nats(train, both, 10)


@pytest.mark.parametrize("smoothed", [2, 3])
def test_ngram_probabilities_add_up(smoothed: int) -> None:
    train = np.array([0, 1, 2, 0, 1, 1, 0, 2, 1], np.uint16)
    total = sum(math.exp(-ngram_nats(train, np.array([0, 1, w][-smoothed:], np.uint16), 3, smoothed)) for w in range(3))
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "good"),
    [("MIT", True), ("Apache-2.0", True), ("BSD-3-Clause AND MIT", True), ("Python Software Foundation License", True),
     ("MPL-2.0", False), ("MPL-2.0 AND MIT", False), ("GPLv3", False), ("LGPL-2.1", False), ("", False),
     ("NVIDIA Proprietary Software", False), ("Apache Software License", True)],
)  # fmt: skip
def test_only_permissive_licences_are_read(words: str, good: bool) -> None:
    assert permissive(words) is good


def package(folder: Path, name: str, licence_line: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "a.py").write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{licence_line}\n")
    (info / "RECORD").write_text(f"{name}/a.py,,\n")


def test_packages_are_gathered_with_their_licences(tmp_path: Path) -> None:
    package(tmp_path, "good", "License-Expression: MIT", "x = 1\n")
    package(tmp_path, "bad", "License: GPLv3", "y = 2\n")
    documents, rows = gather_packages(path=[str(tmp_path)])
    assert [d.text for d in documents] == ["x = 1\n"]
    found = [(row["name"], row["licence"], row["documents"]) for row in rows]
    assert found == [("bad", "GPLv3", 0), ("good", "MIT", 1)]
    assert gather_packages(path=[str(tmp_path)]) == (documents, rows)
    about = {"sha256": "a", "packages_sha256": "b", "packages": rows}
    assert differences(about, about) == []
    assert any("good is 1.0" in line for line in differences(about, {**about, "packages": rows[:1]}))


def test_a_licence_may_be_said_in_three_ways(tmp_path: Path) -> None:
    for line, words in (("License-Expression: MIT", "MIT"), ("License: MIT licence", "MIT licence"),
                        ("Classifier: License :: OSI Approved :: MIT License", "MIT License")):  # fmt: skip
        (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a\nVersion: 1\n{line}\n")
        assert licence(metadata.PathDistribution(tmp_path).metadata) == words


def test_pictures_have_a_line_a_name() -> None:
    svg = curves({"a": [(0, 1.0), (10, 0.5)], "b<": []}, across="step", up="nats")
    assert svg.count("<polyline") == 2
    assert "b&lt;" in svg
    assert curves({}, across="x", up="y").startswith("<svg")


def test_losses_of_runs_are_one_picture(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.csv").write_text("step,held_out_loss\n1,3.0\n2,2.5\n")
    (tmp_path / "unfinished").mkdir()
    svg = held_out_losses(tmp_path)
    assert svg.count("<polyline") == 2
    assert ">two<" in svg
    assert "unfinished" not in svg
