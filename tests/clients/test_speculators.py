"""A server that drafts: the same text as one that does not, streamed or not, drafts in its usage and metrics."""

import re
from typing import Any

import pytest

from edgewise.embedded import embedded_model
from edgewise.serve.http.settings import Settings

from .conftest import KEY, Served

PROMPT = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):"
BODY = {"model": "base", "prompt": PROMPT, "max_tokens": 48, "temperature": 0}


@pytest.mark.native
@pytest.mark.parametrize("speculator", [f"draft:model={embedded_model()},depth=3", "ngram:n=2"])
def test_drafts_change_no_answer_and_are_counted(served: Served, serving: Any, speculator: str) -> None:
    pytest.importorskip("edgewise._native")
    stops = {**BODY, "stop": ["\n\n", "return"]}
    want = [served.ask("/v1/completions", body).json()["choices"][0] for body in (BODY, stops)]
    with serving(Settings(port=0, keys=(KEY,)), speculator=speculator) as server:
        for body, choice in zip((BODY, stops), want, strict=True):
            answer = server.ask("/v1/completions", body).json()
            assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (
                choice["text"], choice["finish_reason"],
            )  # fmt: skip
        frames = server.frames("/v1/completions", {**BODY, "stream": True, "stream_options": {"include_usage": True}})
        assert "".join(f["choices"][0]["text"] for f in frames if f["choices"]) == want[0]["text"]
        details = frames[-1]["usage"]["completion_tokens_details"]
        assert details["accepted_prediction_tokens"] > 0
        metrics = server.ask("/metrics").text
        counts = {
            name: float(value)
            for name, value in re.findall(r"vllm:spec_decode_num_(\w+)_total\{[^}]*\} ([\d.]+)", metrics)
        }
        assert counts["draft_tokens"] >= counts["accepted_tokens"] >= details["accepted_prediction_tokens"]
        assert counts["drafts"] > 0
