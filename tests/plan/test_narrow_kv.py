"""The self-test of narrow KV caches: what it measures, what it decides, and that it is done once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgewise.kernels.api import Floats
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.plan.narrow_kv import Verdict, choose_kv, loss_of, model_key
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint

VOCAB = 50


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    return tiny_model("llama", tmp_path / "model")


class Scorer:
    """Logits of a cache type: the plain ones, and as much noise as the type brings."""

    def __init__(self, noise: float) -> None:
        self.noise, self.asked = noise, list[str]()

    def __call__(self, dtype: str, tokens: Sequence[int]) -> Iterator[Floats]:
        self.asked.append(dtype)
        numbers = np.random.default_rng(0)
        plain = 3 * numbers.standard_normal((len(tokens), VOCAB), np.float32)
        logits = plain + self.noise * numbers.standard_normal(plain.shape, np.float32) * (dtype == "int8")
        yield from (logits[:100], logits[100:])


def choose(folder: Path, score: Scorer) -> Verdict:
    return choose_kv("int8", "f16", open_checkpoint(folder), ReferenceDevice(), None, VOCAB, 4096, score)


def test_a_cache_that_changes_little_stays_and_is_tried_once(folder: Path) -> None:
    score = Scorer(0.01)
    assert choose(folder, score) == Verdict("int8")
    assert choose(folder, score) == Verdict("int8")
    assert score.asked == ["int8", "f16"]


def test_a_cache_that_changes_much_goes_with_a_sentence_every_time(folder: Path) -> None:
    score = Scorer(2.0)
    for _ in range(2):
        verdict = choose(folder, score)
        assert verdict.dtype == "f16"
        assert "int8 KV cache is off, f16 is used" in verdict.note
    assert len(score.asked) == 2


def test_a_model_that_changes_is_tried_again(folder: Path) -> None:
    before = model_key(open_checkpoint(folder))
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())
    assert model_key(open_checkpoint(folder)) != before


def test_what_is_not_a_number_is_refused(folder: Path) -> None:
    assert choose(folder, Scorer(float("nan"))).dtype == "f16"


def test_the_figures() -> None:
    numbers = np.random.default_rng(3)
    plain = numbers.standard_normal((70, 9), np.float32)
    tokens = numbers.integers(0, 9, 70).tolist()
    same = loss_of(plain, plain.copy(), tokens)
    assert (same.rise, same.nats, same.same) == (1.0, 0.0, 1.0)
    other = loss_of(numbers.standard_normal((70, 9), np.float32), plain, tokens)
    assert other.nats > 0.1
    assert other.same < 0.5
    assert not other.small
