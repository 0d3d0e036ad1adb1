"""Rules: what each does to a row, and that together they come in the documented order."""

import numpy as np
import pytest

from edgewise.base import BadInput, SamplingParams, SeqId
from edgewise.decode.api import Draft, SeqView
from edgewise.decode.rules import RULES, rules_for
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.kernels.api import Floats


def view(tokens: list[int], prompt: int, params: SamplingParams) -> SeqView:
    return SeqView(SeqId(0), tokens, prompt, params)


def apply(tokens: list[int], prompt: int, row: list[float], ends: tuple[int, ...] = (), **settings: object) -> Floats:
    params = SamplingParams(**settings)  # type: ignore[arg-type]
    values = np.array(row, np.float32)
    for rule in rules_for(params, ends):
        values = rule.apply(view(tokens, prompt, params), values)
    return values


def test_no_setting_no_rule() -> None:
    assert rules_for(SamplingParams(temperature=0.5, top_k=3, seed=1), {2}) == []


def test_repetition_covers_prompt_and_output() -> None:
    got = apply([0, 1, 1, 3], 2, [2.0, -2.0, 2.0, 1.0], repetition_penalty=2.0)
    assert got.tolist() == [1.0, -4.0, 2.0, 0.5]


def test_presence_and_frequency_cover_the_output_only() -> None:
    got = apply([0, 1, 2, 2, 3], 2, [0.0] * 4, presence_penalty=0.5, frequency_penalty=0.25)
    assert got.tolist() == [0.0, 0.0, -1.0, -0.75]


def test_penalties_count_as_the_text_grows_and_shrinks() -> None:
    params = SamplingParams(frequency_penalty=1.0)
    (rule,) = rules_for(params, ())
    tokens = [4]
    for token in (1, 1, 2):
        tokens.append(token)
        rule.apply(view(tokens, 1, params), np.zeros(5, np.float32))
    assert rule.apply(view(tokens, 1, params), np.zeros(5, np.float32)).tolist() == [0, -2, -1, 0, 0]
    del tokens[2:]
    assert rule.apply(view(tokens, 1, params), np.zeros(5, np.float32)).tolist() == [0, -1, 0, 0, 0]


def test_bias_and_allowed() -> None:
    got = apply([0], 1, [1.0, 2.0, 3.0], logit_bias={1: 5.0}, allowed_token_ids=[1, 2, 2])
    assert got.tolist() == [-np.inf, 7.0, 3.0]


def test_min_tokens_blocks_the_ends_until_reached() -> None:
    assert apply([7, 1], 1, [1.0, 2.0], ends=(1,), min_tokens=2).tolist() == [1.0, -np.inf]
    assert apply([7, 1, 1], 1, [1.0, 2.0], ends=(1,), min_tokens=2).tolist() == [1.0, 2.0]


def test_penalties_come_before_bias() -> None:
    assert apply([0], 1, [4.0], repetition_penalty=2.0, logit_bias={0: 1.0}).tolist() == [3.0]


def test_null_rule_changes_nothing() -> None:
    row = np.arange(4, dtype=np.float32)
    assert RULES.build("none").apply(view([0], 1, SamplingParams()), row) is row


def test_verifier_leaves_the_model_s_logits_alone() -> None:
    params = SamplingParams(temperature=0, logit_bias={2: 100.0})
    verifier = VERIFIERS.build("none", sampler=SAMPLERS.build("standard"))
    rows = np.array([[3.0, 2.0, 1.0]], np.float32)
    accepted = verifier.accept(view([0], 1, params), Draft(), rows, rules_for(params, ()), [0])
    assert accepted.tokens == (2,)
    assert rows.tolist() == [[3.0, 2.0, 1.0]]


def test_nothing_left_to_choose_is_refused() -> None:
    params = SamplingParams(allowed_token_ids=[1], min_tokens=3)
    verifier = VERIFIERS.build("none", sampler=SAMPLERS.build("standard"))
    with pytest.raises(BadInput, match="No token is left"):
        verifier.accept(view([0], 1, params), Draft(), np.zeros((1, 3), np.float32), rules_for(params, {1}), [0])
