"""`edgewise train medusa`: heads learn what the model writes, are found by name, and draft."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from edgewise.base import BadInput, SamplingParams
from edgewise.decode.choices import RANKS, SURENESS, sure_class
from edgewise.decode.drafting_weights import read_tensors
from edgewise.embedded import embedded_model
from edgewise.serve.llm import LLM
from edgewise.train import dataset
from edgewise.train.__main__ import run
from edgewise.train.drafters import DRAFTERS, medusa, streaming
from edgewise.train.drafters._calibration import Counts
from edgewise.train.drafters._joint import Joint, Ordinary, learn_together, ordinary
from edgewise.train.drafters._own_text import OwnText
from edgewise.train.model import Transformer
from edgewise.train.recipe import ModelShape, TrainPlan


def test_heads_learn_what_can_be_learnt(tmp_path: Path) -> None:
    """Token t is t's state, and the next ones count on from it: a head has to shift what it sees."""
    vocab, rows = 24, 40
    tokens = (np.arange(30)[None] + np.random.default_rng(0).integers(0, vocab, (rows, 1))) % vocab
    projection = np.eye(vocab, dtype=np.float32) * 6
    states = np.eye(vocab, dtype=np.float16)[tokens]
    plan = TrainPlan(steps=150, lr=3e-2, batch_tokens=128, optimiser="adamw", warmup_steps=5, weight_decay=0.0)
    to = tmp_path / "h.safetensors"
    accuracy = medusa.train(
        OwnText(tokens.astype(np.int32), 4), states, projection, projection, to, tmp_path / "out", heads=2, root=0,
        plan=plan, device="cpu", minutes=None, bf16=False, resume=False, quiet=True,
    ).accuracy  # fmt: skip
    assert accuracy[:, 0].min() > 0.95
    metadata, tensors = read_tensors(to)
    assert metadata["scale"] == "1"
    assert tensors["0.0.linear.weight"].shape == (vocab, vocab)
    assert np.allclose(tensors["accuracy"], accuracy.numpy())
    assert "held out" in (tmp_path / "out" / "loss.svg").read_text()


def test_calibration_counts_by_rank() -> None:
    model = medusa.Heads(1, torch.eye(16))
    tokens = torch.arange(16)[None] % 16
    states = torch.zeros(1, 16, 16, dtype=torch.float16)
    for place in range(14):  # the right one is always the second best
        states[0, place, place + 2], states[0, place, 0] = 1, 2
    assert medusa.calibrate(model, states, tokens, 4).accuracy[0, :3].tolist() == [0, 1, 0]


def test_calibration_counts_by_sureness_where_the_places_before_were_guessed() -> None:
    """Two places; the first is right for rows 0 to 49 with 0.9, the second with 0.99 for every other of all rows."""
    counts, rows = Counts(2), 100
    first, second = torch.full((rows, 12), 1e-6), torch.full((rows, 12), 1e-6)
    first[:, 0], first[:, 1] = 0.9, 0.1
    second[:, 3], second[:, 4] = 0.99, 0.01
    first[:, 11] = 1e-9  # not among the ten best
    came = torch.arange(rows)
    targets = torch.stack((torch.where(came < 50, 0, 11), torch.where(came % 2 < 1, 3, 4)), 1)
    counts.saw([first.log(), second.log()], targets)
    found = counts.calibration()
    assert found.accuracy[:, :2].tolist() == [[0.5, 0.0], [0.5, 0.5]]
    assert found.chances.shape == (2, RANKS, SURENESS)
    assert abs(float(found.chances[0, 0, int(sure_class(0.9))]) - 0.5) < 0.01
    assert abs(float(found.chances[1, 0, int(sure_class(0.99))]) - 0.5) < 0.01
    known = counts.known[1, 1, 0].sum()
    assert known == 50  # where the first place was guessed


def test_a_root_block_tells_heads_the_next_token(tmp_path: Path) -> None:
    """States that say nothing, and tokens that count on: only who knows the next one can say the one after it."""
    vocab, rows = 24, 40
    tokens = (np.arange(30)[None] + np.random.default_rng(0).integers(0, vocab, (rows, 1))) % vocab
    table = np.eye(vocab, dtype=np.float32)
    states = np.zeros((*tokens.shape, vocab), np.float16)
    plan = TrainPlan(steps=150, lr=3e-2, batch_tokens=128, optimiser="adamw", warmup_steps=5, weight_decay=0.0)
    text, found = OwnText(tokens.astype(np.int32), 4), []
    for root in (0, 32):
        to = tmp_path / f"{root}.safetensors"
        measured = medusa.train(
            text, states, 6 * table, table, to, tmp_path / f"out{root}", heads=1, root=root, plan=plan, device="cpu",
            minutes=None, bf16=False, resume=False, quiet=True,
        )  # fmt: skip
        found.append(float(measured.accuracy[0, 0]))
    assert found[0] < 0.2
    assert found[1] > 0.95
    again = medusa.Heads.read(to, torch.from_numpy(6 * table), torch.from_numpy(table))
    said = again(torch.zeros(vocab, vocab), torch.arange(vocab))[0].argmax(-1)
    assert said.tolist() == [(one + 1) % vocab for one in range(vocab)]


@pytest.mark.native
def test_smoke_from_text_to_drafts(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.py").write_text(Path(__file__).read_text() * 2)
    to = tmp_path / "heads.safetensors"
    words = ["--smoke", "--steps", "2", "--text", str(tmp_path / "text"), "--to", str(to), "--out", str(tmp_path / "o")]
    assert "medusa" in DRAFTERS
    run(["medusa", *words, "--threads", "1"])
    with LLM(threads=1, speculator=f"medusa:heads={to}") as llm:
        assert llm.generate("def add(a, b):", SamplingParams(temperature=0, max_tokens=12))[0].outputs[0].token_ids
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no text"):
        run(["medusa", *words, "--text", str(tmp_path / "empty")])


@pytest.mark.native
@pytest.mark.parametrize("name", ["medusa", "streaming"])
def test_smoke_of_the_joint_stage(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = embedded_model().with_suffix("").with_suffix(f".{name}.safetensors")
    to = tmp_path / "new" / "joint.gguf"
    (tmp_path / "a.py").write_text(Path(__file__).read_text() * 2)
    words = ["--smoke", "--steps", "1", "--text", str(tmp_path / "a.py"), "--to", str(first), "--joint", str(to)]
    run([name, *words, "--out", str(tmp_path / "o"), "--threads", "1"])
    assert "perplexity" in capsys.readouterr().out
    log = (tmp_path / "o" / "joint" / "log.csv").read_text().splitlines()
    assert log[0].endswith("perplexity,tokens_per_pass")
    assert 0.9 < float(log[1].split(",")[-2]) < 1.1  # beside the old one's
    with LLM(to, threads=1, speculator=name) as llm:  # found beside the new model
        assert llm.generate("def add(a, b):", SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].token_ids


def test_what_the_old_model_said_holds_the_new_one(tmp_path: Path) -> None:
    """At no rate it stays as it was; without drafts to care for it goes back to where it came from."""
    shape = ModelShape(dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn_dim=24, vocab=20, context=32)
    numbers = np.random.default_rng(0)
    text = OwnText(numbers.integers(0, 20, (12, 24)).astype(np.int32), 4)
    plain = Ordinary(numbers.integers(0, 20, (12, 30)).astype(np.int32), 10)
    plan = TrainPlan(40, 1e-2, batch_tokens=160, optimiser="adamw", warmup_steps=1, weight_decay=0.0, eval_every=10)
    for share, model_rate in ((1.0, 0.0), (0.0, 1.0)):
        torch.manual_seed(1)
        old = Transformer(shape).requires_grad_(False)
        base, drafts = Transformer(shape), torch.nn.Linear(16, 1)
        with torch.no_grad():
            for was, now in zip(old.parameters(), base.parameters(), strict=True):
                now.copy_(was + 0.1 * torch.randn_like(was))
        begun, joint = base.model.embed_tokens.weight.clone(), Joint(base, drafts)

        def see(ids: torch.Tensor, step: int, joint: Joint = joint) -> tuple[torch.Tensor, torch.Tensor]:
            states = joint.base.states(ids)[0]
            return states, (joint.drafts(states) - 3).square().mean()

        out = tmp_path / str(share)
        before, after = learn_together(
            joint, old, see, lambda: 1.5, text, plain, out, plan=plan, share=share, model_rate=model_rate,
            device="cpu", minutes=None, bf16=False, resume=False, quiet=True,
        )  # fmt: skip
        rows = [line.split(",") for line in (out / "log.csv").read_text().splitlines()[1:]]
        assert float(rows[-1][2]) < float(rows[0][2])
        assert torch.equal(base.model.embed_tokens.weight, begun) == (model_rate == 0)
        assert before > 0
        assert after > 0


def test_ordinary_text_is_held_out_where_the_arrays_are(data_folder: Path) -> None:
    args: Any = SimpleNamespace(data=data_folder, smoke=True)
    found = ordinary(cast(Any, SimpleNamespace(context=24)), args)
    held = dataset.load(data_folder).held_out
    assert found.tokens.shape[1] == 24
    judged = {tuple(row) for row in held[: len(held) // 24 * 24].reshape(-1, 24).tolist()}
    assert len(found.tokens) > found.split
    assert all(tuple(row) in judged for row in found.tokens[found.split :].tolist())


@pytest.mark.native
def test_smoke_of_streams(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(Path(__file__).read_text() * 2)
    to = tmp_path / "s.safetensors"
    words = ["--smoke", "--steps", "1", "--rank", "2", "--text", str(tmp_path / "a.py"), "--to", str(to)]
    run(["streaming", *words, "--out", str(tmp_path / "o"), "--threads", "1"])
    said = []
    for speculator in ("none", f"streaming:streams={to}"):
        with LLM(threads=1, speculator=speculator) as llm:
            found = llm.generate("def add(a, b):", SamplingParams(temperature=0, max_tokens=12))
            said.append(found[0].outputs[0].token_ids)
    assert said[0] == said[1]


def test_streams_are_what_ordinary_rows_would_be() -> None:
    """With all layers on top and vectors that lead from the state to an embedding, a stream is the next token's row."""
    shape = ModelShape(dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_dim=48, vocab=50, context=32)
    torch.manual_seed(0)
    model = Transformer(shape)
    drafting = streaming.Streams(model, 2, 2)
    ids = torch.randint(50, (1, 9))
    table = model.model.embed_tokens.weight
    place = 6
    with torch.no_grad():
        for j in range(2):
            drafting.embed[j] = table[ids[0, place + 1 + j]] - table[ids[0, place]]
        found = drafting(ids, torch.tensor([[place]]))[0][0, 0]
        want = model(ids)[0, place + 1 : place + 3]
    assert torch.allclose(found, want, atol=1e-4)
