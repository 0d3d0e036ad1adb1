"""The loop: it learns, it can be stopped and resumed without a trace, the command line goes the whole way."""

import argparse
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.train import __main__ as command
from edgewise.train import dataset, loop, work
from edgewise.train.__main__ import run
from edgewise.train.corpus import stdlib_folder
from edgewise.train.drafters import _own_text
from edgewise.train.drafters._own_text import OwnText
from edgewise.train.hf import load_hf
from edgewise.train.loop import learning_rate, train
from edgewise.train.model import Transformer, cross_entropy
from edgewise.train.recipe import Recipe, load_recipe, members
from edgewise.train.tokenizer import load_tokenizer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "state.pt", weights_only=True)["model"]
    return state


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_resumed_equals_uninterrupted(recipe: Recipe, data_folder: Path, tmp_path: Path, optimiser: str) -> None:
    recipe, data = recipe.changed("train", optimiser=optimiser), dataset.load(data_folder)
    whole = train(recipe, data, tmp_path / "whole", quiet=True)
    train(recipe, data, tmp_path / "parts", quiet=True, go_on=lambda step: step < 4)
    parts = train(recipe, data, tmp_path / "parts", quiet=True, resume=True)
    assert whole.steps == parts.steps == recipe.train.steps
    assert [row["held_out_loss"] for row in whole.log] == [row["held_out_loss"] for row in parts.log]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_leaves_a_loadable_model(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    plan = recipe.changed("train", steps=60, eval_every=20, dropout=0.0)
    result = train(plan, dataset.load(data_folder), tmp_path, quiet=True)
    assert result.best_loss < math.log(recipe.model.vocab) - 0.5
    assert result.tokens == sum(128 for _ in range(60))
    assert load_hf(tmp_path / "model").shape == recipe.model
    assert (tmp_path / "log.csv").read_text().startswith("step,train_loss,held_out_loss,lr,seconds\n")


def test_resume_refuses_nothing_and_another_recipe(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    data = dataset.load(data_folder)
    with pytest.raises(BadInput, match="to resume from"):
        train(recipe, data, tmp_path, quiet=True, resume=True)
    train(recipe, data, tmp_path, quiet=True, go_on=lambda step: step < 1)
    with pytest.raises(BadInput, match="another recipe"):
        train(recipe.changed("train", lr=1.0), data, tmp_path, quiet=True, resume=True)


def test_rate_warms_up_then_falls(recipe: Recipe) -> None:
    rates = [learning_rate(step / 100, step, recipe.train) for step in range(100)]
    assert rates[0] < rates[1] > rates[50] > rates[99] > 0
    assert math.isclose(learning_rate(1.0, 100, recipe.train), recipe.train.lr * recipe.train.final_lr_share)


def test_batches_depend_on_seed_and_step_alone(recipe: Recipe, data_folder: Path) -> None:
    data = dataset.load(data_folder)
    first, second = dataset.Sampler(data, recipe, "cpu"), dataset.Sampler(data, recipe, "cpu")
    inputs, targets = first(2)
    assert torch.equal(inputs, second(2)[0])
    assert not torch.equal(inputs, second(3)[0])
    assert inputs.shape == targets.shape == (8, 16)
    assert first(5)[0].shape == (4, 32)  # the last third of the steps takes the whole context
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert ((inputs == data.bos)[:, 0]).any()


@pytest.mark.parametrize(("length", "stride"), [(2, 16), (33, 16), (34, 16), (100, 16), (101, 32), (1000, 7)])
def test_every_held_out_token_is_a_target_once(length: int, stride: int) -> None:
    tokens = np.arange(length).astype(np.uint16)
    inputs, targets = dataset.held_out_windows(tokens, 32, stride)
    scored = targets[targets >= 0]
    assert sorted(scored.tolist()) == list(range(1, length))
    assert (inputs[targets >= 0] == scored - 1).all()


def test_recipes_load_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    for name in ("base", "base-gpu"):
        shape = load_recipe(name).model
        assert shape.context >= 1024
        assert shape.dim % 256 == shape.ffn_dim % 256 == shape.heads * shape.head_dim % 256 == 0
    with pytest.raises(BadInput, match=r"Known: .*base"):
        load_recipe("nosuch")
    (tmp_path / "odd.toml").write_text("[model]\nvocab = 3\nvocabs = 4\n")
    with pytest.raises(BadInput, match="unknown or missing settings"):
        load_recipe(str(tmp_path / "odd.toml"))


def test_what_a_member_says_is_checked(tmp_path: Path) -> None:
    tables = "[model]\ndim=8\nlayers=1\nheads=1\nkv_heads=1\nhead_dim=8\nffn_dim=8\n[train]\nsteps=1\nlr=1.0\n"
    odd = {"[date]\n": "unknown tables", "[data]\nshares = { stdlob = 1.0 }\n": "no text called stdlob"}
    for extra, match in odd.items():
        (tmp_path / "odd.toml").write_text(tables + extra)
        with pytest.raises(BadInput, match=match):
            load_recipe(str(tmp_path / "odd.toml"))
    (tmp_path / "odd.toml").write_text("kind = 'poet'\n" + tables)
    with pytest.raises(BadInput, match="kind must be"):
        load_recipe(str(tmp_path / "odd.toml"))


def test_a_checkpoint_between_evaluations_is_enough(
    recipe: Recipe, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1)  # after every step
    data = dataset.load(data_folder)

    def dies(step: int) -> bool:
        if step == 5:
            raise RuntimeError("the machine went away")
        return True

    whole = train(recipe, data, tmp_path / "whole", quiet=True)
    with pytest.raises(RuntimeError):
        train(recipe, data, tmp_path / "parts", quiet=True, go_on=dies)
    parts = train(recipe, data, tmp_path / "parts", quiet=True, resume=True)
    assert [row["train_loss"] for row in whole.log] == [row["train_loss"] for row in parts.log]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_heads_on_a_frozen_trunk_need_no_second_loop(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    data, plan = dataset.load(data_folder), recipe.changed("train", lr=1e-2, dropout=0.0)
    trunk = Transformer(recipe.model).requires_grad_(False)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    head = torch.nn.Linear(recipe.model.dim, recipe.model.vocab, bias=False)
    saved: list[dict[str, torch.Tensor]] = []

    def second_next(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(trunk.states(inputs)[0][:, :-1]), targets[:, 1:])

    probe = dataset.Sampler(data, plan, "cpu")
    result = loop.fit(
        head, plan.train, tmp_path, batches=probe, objective=second_next, save=saved.append, identity={"heads": 1},
        held_out=lambda step: float(second_next(*probe(1000)).detach()), quiet=True,
    )  # fmt: skip
    assert result.log[-1]["held_out_loss"] < result.log[0]["held_out_loss"]
    assert saved[-1].keys() == head.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_parts_learn_at_their_own_rates_and_are_watched(recipe: Recipe, tmp_path: Path) -> None:
    parts = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("still", "slow", "fast")})
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    x = torch.ones(2, 4)
    plan = replace(recipe.train, steps=4, optimiser="adamw", lr=1e-2, warmup_steps=1, weight_decay=0.0, eval_every=2)
    loop.fit(
        parts, plan, tmp_path, batches=lambda step: (x, x), save=lambda best: None, identity={}, quiet=True,
        objective=lambda x, y: torch.stack([parts[name](x).square().sum() for name in parts]).sum(),
        held_out=lambda step: 0.0, watch=lambda: {"seen": 7.0},
        rates=lambda name: {"still": 0.0, "slow": 0.1, "fast": 1.0}[name.split(".")[0]],
    )  # fmt: skip
    still, slow, fast = (
        max(float((value - before[name]).abs().max()) for name, value in parts.state_dict().items() if part in name)
        for part in ("still", "slow", "fast")
    )
    assert still == 0 < slow < 0.2 * fast
    assert (tmp_path / "log.csv").read_text().splitlines()[1].endswith(",7")


def test_weights_to_start_with_are_taken_where_they_fit(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    data = dataset.load(data_folder)
    small = Transformer(recipe.changed("model", ffn_dim=32).model).state_dict()
    train(recipe, data, tmp_path, quiet=True, start=small, go_on=lambda step: False)
    found = weights(tmp_path)
    same = [name for name in found if found[name].shape == small[name].shape and torch.equal(found[name], small[name])]
    assert "model.embed_tokens.weight" in same
    assert not any("mlp" in name for name in same)
    with pytest.raises(BadInput, match="nothing in common"):
        train(recipe, data, tmp_path, quiet=True, start={"other": torch.zeros(1)})


def test_answers_alone_cost(recipe: Recipe, data_folder: Path) -> None:
    data = dataset.load(data_folder)
    plan = recipe.changed("data", shares={"tasks": 1.0}, loss_on="answers")
    sampler = dataset.Sampler(data, plan, "cpu")
    inputs, targets = sampler(5)
    tokenizer = load_tokenizer(data_folder)
    user, assistant = (tokenizer.token_to_id(mark) for mark in ("<|user|>", "<|assistant|>"))
    assert (inputs[:, 0] == data.bos).all()
    assert (inputs[:, 1] == user).all()
    assert (targets[inputs == user] == dataset.IGNORE).all()
    assert (targets[inputs == assistant] >= 0).all()


@pytest.mark.parametrize("name", members())
def test_smoke_of_every_member_goes_the_whole_way(
    name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path_factory.getbasetemp() / "smoke-data"  # made by the first, taken by the others
    folders = ["--data", str(data), "--out", str(tmp_path / "out")]
    run([name, "--smoke", "--steps", "3", *folders, "--to", str(tmp_path / "kept")])
    assert ("bits per byte" in (said := capsys.readouterr().out)) or "Right labels" in said
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in (tmp_path / "kept").iterdir()
    }
    assert "polyline" in (tmp_path / "out" / "loss.svg").read_text()
    run(["eval", name, "--smoke", "--count", "1", "--json", *folders])
    assert json.loads(capsys.readouterr().out)


def test_all_trains_everybody_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "one", lambda args: done.append((args.words, args.minutes, args.resume, args.to)))
    (tmp_path / "build-train" / "base").mkdir(parents=True)
    (tmp_path / "build-train" / "base" / "report.md").touch()
    run(["all", "--minutes", "28", "--resume", "--to", "kept"])
    assert [words for words, *_ in done] == [[name] for name in command.SHARES if name != "base"]
    assert sum(minutes for _, minutes, *_ in done) == pytest.approx(28 * (1 - 8 / sum(command.SHARES.values())))
    assert done[0][2:] == (False, Path("kept/draft"))
    assert command.SHARES.keys() == set(members()) - {"base-gpu"}
    with pytest.raises(BadInput, match="wants --minutes"):
        run(["all"])


def test_four_bits_are_what_the_engine_rounds_to() -> None:
    weight = np.random.default_rng(3).standard_normal((6, 64)).astype(np.float32)
    weight[2, :32] = 0
    stored = formats.dequantize("Q4_0", formats.quantize("Q4_0", weight), weight.size).reshape(weight.shape)
    ours = loop.four_bits(torch.from_numpy(weight)).numpy()
    assert np.abs(ours - stored).max() <= 2e-3 * np.abs(weight).max()  # its scales are float16


def test_the_end_of_a_training_may_see_four_bits(recipe: Recipe) -> None:
    torch.manual_seed(1)
    model = Transformer(recipe.model)
    was = {name: p.detach().clone() for name, p in model.named_parameters()}
    with loop.narrowed(model, True):
        up = model.model.layers[0].mlp.up_proj.weight
        assert len(up.unique()) <= 16 * up.numel() // 32
        assert not torch.equal(up, was["model.layers.0.mlp.up_proj.weight"])
    assert all(torch.equal(p, was[name]) for name, p in model.named_parameters())
    with loop.narrowed(model, False):
        assert all(torch.equal(p, was[name]) for name, p in model.named_parameters())


def test_a_pupil_reads_what_its_teacher_wrote(
    recipe: Recipe, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, teacher = tmp_path / "data", tmp_path / "teacher.gguf"
    shutil.copytree(data_folder, data)
    teacher.write_bytes(b"weights")
    asked = []

    def wrote(parts: object, wanted: argparse.Namespace) -> OwnText:
        asked.append(wanted.tokens)
        return OwnText(np.full((20, 8), 7, np.int32), 4)

    monkeypatch.setattr(work, "weights_of", lambda name, place: teacher)
    monkeypatch.setattr(_own_text, "opened", lambda wanted, sequences: None)
    monkeypatch.setattr(_own_text, "write", wrote)
    place = work.Place(data, tmp_path / "out", tmp_path, "cpu", bf16=False, smoke=False)
    pupil = recipe.changed("data", own=160, shares={"own": 1.0}).changed("train", teacher="base")
    work.own_text(pupil, place)
    work.own_text(pupil, place)
    assert asked == [160]  # once for one teacher
    inputs, targets = dataset.Sampler(dataset.load(data), pupil, "cpu")(0)
    assert set(inputs[:, 1:].flatten().tolist()) | set(targets.flatten().tolist()) == {7}
    teacher.write_bytes(b"others")
    work.own_text(pupil, place)
    assert asked == [160, 160]
    with pytest.raises(BadInput, match="names none"):
        work.train(recipe.changed("data", shares={"own": 1.0}), place)


def test_prepare_can_insist_on_the_same_text(tmp_path: Path) -> None:
    lock, folders = tmp_path / "lock.json", ["--smoke", "--data", str(tmp_path / "data")]
    run(["prepare", *folders])
    lock.write_text((tmp_path / "data" / "corpus.json").read_text())
    run(["prepare", *folders, "--lock", str(lock)])
    with pytest.raises(BadInput, match="standard library"):
        run(["prepare", *folders, "--lock", str(lock), "--corpus", str(stdlib_folder() / "logging")])
