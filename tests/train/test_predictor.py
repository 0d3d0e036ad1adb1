"""`train predictor`: a file beside the model, recall near what was asked, and a run that uses it without torch."""

import numpy as np
import pytest

from edgewise.base import BadInput, SamplingParams, Unsupported
from edgewise.convert.neuron_layout import convert_neurons
from edgewise.models.neurons.predictor import FILE, read_heads
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.train.__main__ import run
from edgewise.train.predictor import Heads, Seen, fit, judged, placed, train_predictor

GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model("llama", tmp_path_factory.mktemp("relu") / "model", hidden_act="relu", dtype="BF16")


def test_it_is_found_and_used(model, tmp_path, capsys) -> None:
    run(["predictor", str(model), "--smoke"])
    assert "recall" in capsys.readouterr().out
    heads = read_heads(model / FILE)
    assert heads["layers.1.in"].shape == (24, 48)
    assert heads["layers.1.out"].shape == (80, 24)
    convert_neurons(model, tmp_path / "laid")
    prompts = [[5, 6, 7, 8, 9, 10], [9, 8, 7]]
    whole = LLM(tmp_path / "laid", threads=1, ctx_size=64, neurons="predictor")
    together = [out.outputs[0].token_ids for out in whole.generate(prompts, GREEDY)]
    bare = LLM(tmp_path / "laid", threads=1, ctx_size=64, neurons="predictor", residency="none")
    alone = [bare.generate([prompt], GREEDY)[0].outputs[0].token_ids for prompt in prompts]
    assert together == alone  # what a row needs does not depend on its company, nor on what stayed
    # whoever expects everybody is exact
    sure = LLM(tmp_path / "laid", threads=1, ctx_size=64, neurons="predictor:margin=1e9")
    dense = LLM(model, threads=1, ctx_size=64)
    assert [o.outputs[0].token_ids for o in sure.generate(prompts, GREEDY)] == [
        o.outputs[0].token_ids for o in dense.generate(prompts, GREEDY)
    ]
    assert sure.parts.neurons.running.counts.asked > whole.parts.neurons.running.counts.asked


def test_heads_learn_what_can_be_learnt_and_chance_does_not() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1200, 16)).astype(np.float32)
    true = rng.standard_normal((64, 6)) @ rng.standard_normal((6, 16))
    scores = inputs @ true.T
    fires = scores > np.quantile(scores, 0.9)
    learn, place, test = (Seen(inputs[a:b], fires[a:b]) for a, b in ((0, 800), (800, 1000), (1000, 1200)))
    good = judged(placed(fit(learn, rank=8, steps=200), place, 0.95), test)
    assert good["recall"] > 0.9
    assert good["precision"] > 0.6
    mixed = Seen(test.inputs, rng.permutation(test.fires))
    assert judged(placed(fit(learn, rank=8, steps=200), place, 0.95), mixed)["recall"] < 0.5


def test_the_threshold_finds_the_share_that_was_asked() -> None:
    rng = np.random.default_rng(1)
    heads = Heads(*(rng.standard_normal(shape).astype(np.float32) for shape in ((4, 8), (32, 4), (32,))))
    seen = Seen(rng.standard_normal((200, 8)).astype(np.float32), rng.random((200, 32)) < 0.1)
    assert judged(placed(heads, seen, 0.8), seen)["recall"] == pytest.approx(0.8, abs=0.01)


def test_what_has_nothing_to_predict_is_refused(tmp_path, model) -> None:
    with pytest.raises(Unsupported, match="no dense relu gate"):
        train_predictor(tiny_model("llama", tmp_path / "silu"), tokens=128, steps=1)
    with pytest.raises(BadInput, match="is no folder"):
        train_predictor(tmp_path / "model.gguf")
    with pytest.raises(BadInput, match="must be between"):
        train_predictor(model, recall=1.5)
    convert_neurons(tiny_model("llama", tmp_path / "relu", hidden_act="relu"), tmp_path / "laid")
    with pytest.raises(BadInput, match="train predictor"):
        LLM(tmp_path / "laid", threads=1, ctx_size=64, neurons="predictor")
