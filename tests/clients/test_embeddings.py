"""Embeddings through openai-python, against the engine's own states."""

import numpy as np
import openai
import pytest

pytestmark = pytest.mark.native


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings(client, served, pooling):
    texts = ["def add(a, b):", "import os\n" * 150]
    made = client.embeddings.create(model="base", input=texts, extra_body={"pooling": pooling})
    plain = client.embeddings.create(
        model="base", input=texts, encoding_format="float", extra_body={"pooling": pooling}
    )
    counts = [len(served.model.tokenizer.encode(text, add_special=True)) for text in texts]
    assert counts[1] > 256  # more than a turn
    assert made.usage.prompt_tokens == made.usage.total_tokens == sum(counts)
    for text, one, two in zip(texts, made.data, plain.data, strict=True):
        vector = np.array(one.embedding)
        assert np.array_equal(vector, np.array(two.embedding, np.float32))
        assert abs(np.linalg.norm(vector) - 1) < 1e-5
        tokens = served.model.tokenizer.encode(text, add_special=True)
        rows = np.concatenate(list(served.model.llm.parts.runner.states(tokens, 1000)))
        pooled = rows.mean(0, dtype=np.float64) if pooling == "mean" else rows[-1].astype(np.float64)
        assert np.allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-6)
    served.model.thread.soon(lambda: None)  # it may have looked while this thread held pages of its own
    served.until(served.idle)


def test_states_are_what_the_head_sees(served):
    """The logits of the plain path follow from them, so they are the right rows after the right norm."""
    llm = served.model.llm
    tokens = llm.tokenize("def add(a, b):\n    return a")
    rows = np.concatenate(list(llm.parts.runner.states(tokens, 3)))
    assert rows.shape == (len(tokens), llm.parts.spec.dim)
    again = np.concatenate(list(llm.parts.runner.states(tokens, 100)))
    assert np.array_equal(rows, again)  # law 1: chunks change nothing
    table = llm.parts.model.head_weight
    logits = llm.parts.device.download(llm.parts.device.linear(llm.parts.device.upload(rows), table, None))
    assert np.array_equal(logits, llm.logits(tokens))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"), ({"input": []}, "input"), ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": ""}, "input"), ({"input": "a", "stream": True}, "stream"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "pooling": "max"}, "pooling"),
        ({"input": [[5] * 1025]}, "input"), ({"input": [99999999]}, "input"),
    ],
    ids=str,
)  # fmt: skip
def test_refusals(served, body, param):
    answer = served.ask("/v1/embeddings", {"model": "base", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
