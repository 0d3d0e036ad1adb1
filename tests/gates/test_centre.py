"""Gate 5: the centre is frozen. Changing a list here needs a decision record (docs/decisions) in the same change."""

import dataclasses

import pytest

from edgewise.base import Cap, Request, SamplingParams, Tap
from edgewise.engine.api import Decision, Job

CENTRE = {
    Request: ("tokens", "params", "id", "arrival_s", "extra"),
    SamplingParams: (
        "n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "seed", "stop", "stop_token_ids",
        "ignore_eos", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "allowed_token_ids",
        "logprobs", "skip_special_tokens", "structured_outputs",
    ),
    Job: (
        "seq", "arrival_s", "prompt_tokens", "prefilled", "generated", "running", "priority", "key", "left", "served_s",
        "since_s", "promotions", "swapped",
    ),
    Decision: ("prefill", "decode", "preempt", "promote", "park", "fetch", "stays"),
}  # fmt: skip


@pytest.mark.parametrize("cls", CENTRE, ids=lambda cls: cls.__name__)
def test_fields_are_frozen(cls):
    assert tuple(field.name for field in dataclasses.fields(cls)) == CENTRE[cls]
    assert cls.__dataclass_params__.frozen


def test_caps_and_taps_are_few():
    assert [cap.name for cap in Cap] == ["REWIND", "FORK", "EXPORT", "TREE", "EXACT"]
    assert [tap.name for tap in Tap] == ["HIDDEN", "GATE", "STATES"]
