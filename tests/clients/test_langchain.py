"""langchain-openai, unmodified."""

import asyncio
import gc

import pytest

pytestmark = [
    pytest.mark.native,
    pytest.mark.filterwarnings("default"),  # of its own house: deprecations between its packages
]
langchain_openai = pytest.importorskip("langchain_openai", reason="no langchain: pip install langchain-openai")
ASK = "Write a function that adds two numbers."


@pytest.fixture(autouse=True, scope="module")
def _swept():
    """Connections it does not close are found here, and not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture
def chat(served):
    return langchain_openai.ChatOpenAI(
        model="base", base_url=f"{served.url}/v1", api_key="test-key", temperature=0, max_tokens=16, max_retries=0
    )  # fmt: skip


def plain(served, text, count=16):
    body = {"model": "base", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": count}
    return served.ask("/v1/chat/completions", body).json()


def test_invoke(chat, served):
    made, same = chat.invoke(ASK), plain(served, ASK)
    assert made.content == same["choices"][0]["message"]["content"]
    assert made.usage_metadata["input_tokens"] == same["usage"]["prompt_tokens"]
    assert made.usage_metadata["output_tokens"] == 16
    assert made.response_metadata["finish_reason"] == "length"
    talk = [("system", "Be brief."), ("human", ASK), ("ai", "def add"), ("human", "Go on.")]
    assert chat.invoke(talk).content


@pytest.mark.parametrize("usage", [None, True])
def test_stream(chat, served, usage):
    whole = None
    for piece in chat.stream(ASK, **({} if usage is None else {"stream_usage": usage})):
        whole = piece if whole is None else whole + piece
    assert whole.content == plain(served, ASK)["choices"][0]["message"]["content"]
    if usage:
        assert whole.usage_metadata["output_tokens"] == 16


def test_batch(chat, served):
    asked = [f"{ASK} {at}" for at in range(5)]
    assert [one.content for one in chat.batch(asked)] == [
        plain(served, text)["choices"][0]["message"]["content"] for text in asked
    ]


def test_async(chat, served):
    async def talk():
        whole = await chat.ainvoke(ASK)
        return whole.content, "".join([piece.content async for piece in chat.astream(ASK)])

    one, two = asyncio.run(talk())
    assert one == two == plain(served, ASK)["choices"][0]["message"]["content"]


def test_responses(served):
    chat = langchain_openai.ChatOpenAI(
        model="base", base_url=f"{served.url}/v1", api_key="test-key", temperature=0, max_tokens=16, max_retries=0,
        use_responses_api=True,
    )  # fmt: skip
    text = plain(served, ASK)["choices"][0]["message"]["content"]
    made = chat.invoke(ASK)
    assert made.text == text
    assert made.usage_metadata["output_tokens"] == 16
    whole = None
    for piece in chat.stream(ASK):
        whole = piece if whole is None else whole + piece
    assert whole.text == text


def embedder(served, checked):
    """checked: it counts tokens with a tokenizer of OpenAI's and sends their ids, which mean nothing to this model."""
    return langchain_openai.OpenAIEmbeddings(
        model="base", base_url=f"{served.url}/v1", api_key="test-key", check_embedding_ctx_length=checked, max_retries=0
    )


def test_embeddings_of_texts(served):
    texts = ["a = 1", "def add(a, b):"]
    made = embedder(served, False).embed_documents(texts)
    same = served.ask("/v1/embeddings", {"model": "base", "input": texts}).json()
    assert made == [one["embedding"] for one in same["data"]]
    assert embedder(served, False).embed_query(texts[0]) == made[0]


def test_embeddings_of_foreign_tokens(served, monkeypatch):
    """Ids of another vocabulary: within ours they are taken as ours, beyond it they are refused."""
    made = embedder(served, True)
    ids = iter([[[5, 9, 11]], [[99_999_999]]])

    def tokenized(self, texts, chunk_size):
        (tokens,) = next(ids)
        return range(0, 1, chunk_size), [tokens], [0], [len(tokens)]

    monkeypatch.setattr(type(made), "_tokenize", tokenized)  # tiktoken would fetch its vocabulary from elsewhere
    same = served.ask("/v1/embeddings", {"model": "base", "input": [[5, 9, 11]]}).json()
    assert made.embed_documents(["x"])[0] == pytest.approx(same["data"][0]["embedding"], abs=1e-7)
    import openai

    with pytest.raises(openai.BadRequestError, match="99999999"):
        made.embed_documents(["x"])
