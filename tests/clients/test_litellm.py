"""litellm, unmodified, as an OpenAI client and as an Ollama client."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(
        importlib.util.find_spec("litellm") is None,
        reason="no litellm: install the extra litellm, in an environment of its own",
    ),
]
ASK = [{"role": "user", "content": "Write a function that adds two numbers."}]
PROVIDERS = ["openai", "ollama_chat"]


@pytest.fixture(scope="module")
def heard(served):
    made = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("litellm_talk.py")), served.url], capture_output=True, text=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}, timeout=240,  # else it asks the network for prices
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    return json.loads(made.stdout.splitlines()[-1])


@pytest.fixture
def same(served):
    body = {"model": "base", "messages": ASK, "temperature": 0, "max_tokens": 16}
    return served.ask("/v1/chat/completions", body).json()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_completion(heard, same, provider):
    got = heard[provider]["whole"]
    assert got["text"] == same["choices"][0]["message"]["content"]
    assert got["reason"] == "length"
    assert got["usage"] == [same["usage"]["prompt_tokens"], 16]


@pytest.mark.parametrize("way", ["stream", "async"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_stream(heard, same, provider, way):
    assert heard[provider][way] == {"text": same["choices"][0]["message"]["content"], "reason": "length"}


def test_embedding(heard, served):
    same = served.ask("/v1/embeddings", {"input": ["a = 1", "def add(a, b):"]}).json()
    assert heard["embedding"] == [one["embedding"] for one in same["data"]]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors(heard, provider):
    kind, text = heard[provider]["unknown"]
    assert kind == "NotFoundError"
    assert "nope" in text
    kind, text = heard[provider]["long"]
    assert kind in ("BadRequestError", "ContextWindowExceededError")
    assert "context holds" in text
