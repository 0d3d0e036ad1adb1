"""`edgewise train medusa`: heads learn what the model writes, are found by name, and draft."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.base import BadInput, SamplingParams
from edgewise.decode.drafting_weights import read_tensors
from edgewise.embedded import embedded_model
from edgewise.serve.llm import LLM
from edgewise.train.__main__ import run
from edgewise.train.drafters import DRAFTERS, medusa, streaming
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
        OwnText(tokens.astype(np.int32), 4), states, projection, to, tmp_path / "out", heads=2, plan=plan,
        device="cpu", minutes=None, bf16=False, resume=False, quiet=True,
    )  # fmt: skip
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
    assert medusa.calibrate(model, states, tokens, 4)[0, :3].tolist() == [0, 1, 0]


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
def test_smoke_of_the_joint_stage(tmp_path: Path) -> None:
    heads = embedded_model().with_suffix("").with_suffix(".medusa.safetensors")
    to = tmp_path / "new" / "joint.gguf"
    (tmp_path / "a.py").write_text(Path(__file__).read_text() * 2)
    words = ["--smoke", "--steps", "1", "--text", str(tmp_path / "a.py"), "--to", str(heads), "--joint", str(to)]
    run(["medusa", *words, "--out", str(tmp_path / "o"), "--threads", "1"])
    with LLM(to, threads=1, speculator="medusa") as llm:  # found beside the new model
        assert llm.generate("def add(a, b):", SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].token_ids


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
