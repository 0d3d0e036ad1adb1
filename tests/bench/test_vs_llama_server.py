"""The comparison with llama-server counts what it says, and finds usage that is missing or wrong."""

import pytest

pytest.importorskip("edgewise._native", reason="needs the compiled extension")

import vs_llama_server
from edgewise.sim.load import Arrival

pytestmark = pytest.mark.native


def answer(prompt, made, ttft=0.5, status=200):
    usage = None if prompt is None else {"prompt_tokens": prompt, "completion_tokens": made}
    return {"usage": usage, "ttft_s": ttft, "status": status, "total_s": 1.0, "frames": made, "finish": "length"}


def test_usage_is_judged_by_what_was_asked():
    asked = vs_llama_server.bodies([Arrival(0.0, 7, 3)] * 4, 100, 0)
    assert [len(body["prompt"]) for body in asked] == [7] * 4
    found = {"seconds": 2.0, "answers": [answer(7, 3), answer(8, 3), answer(None, 3, 0.9), answer(7, 2, status=500)]}
    row = vs_llama_server.judge(found, asked)
    assert (row["wrong_usage"], row["failed"]) == (3, 1)
    assert row["tok_s"] == 6.0
    assert row["all_tok_s"] == 20.0
    assert row["ttft_all_s"][-1] == 0.9


def test_prompts_differ_between_rounds_and_requests():
    one, two = (vs_llama_server.bodies([Arrival(0.0, 9, 3)] * 3, 1000, seed) for seed in (0, 1))
    assert len({tuple(body["prompt"]) for body in one + two}) == 6
