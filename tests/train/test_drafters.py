"""`edgewise train medusa`: heads learn what the model writes, are found by name, and draft."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.base import BadInput, SamplingParams
from edgewise.decode.drafting_weights import read_tensors
from edgewise.serve.llm import LLM
from edgewise.train.__main__ import run
from edgewise.train.drafters import DRAFTERS, medusa
from edgewise.train.drafters._own_text import OwnText
from edgewise.train.recipe import TrainPlan


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
