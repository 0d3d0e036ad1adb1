"""openai-python, unmodified, against a served model."""

import asyncio

import openai
import pytest

pytestmark = pytest.mark.native
ASK = [{"role": "user", "content": "Write a function that adds two numbers."}]


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


def test_models(client):
    assert [model.id for model in client.models.list()] == ["base"]
    assert client.models.retrieve("base").id == "base"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_a_wrong_key_is_refused(served):
    stranger = openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_chat_equals_the_engine(client, served):
    made = client.chat.completions.create(model="base", messages=ASK, temperature=0, max_completion_tokens=24)
    tokens = served.model.template.encode(served.model.tokenizer, ASK, add_generation_prompt=True)
    assert made.object == "chat.completion"
    assert made.choices[0].message.role == "assistant"
    assert made.usage.prompt_tokens == len(tokens)
    assert made.usage.completion_tokens == 24
    assert made.usage.total_tokens == len(tokens) + 24
    assert made.choices[0].finish_reason == "length"
    again = client.completions.create(model="base", prompt=tokens, temperature=0, max_tokens=24)
    assert again.choices[0].text.lstrip(" ") == made.choices[0].message.content.lstrip(" ")
    assert again.usage.completion_tokens == 24


def test_a_stream_says_the_same(client):
    settings = {"model": "base", "messages": ASK, "seed": 5, "temperature": 0.9, "max_tokens": 30, "n": 2}
    whole = client.chat.completions.create(**settings)
    chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *body, last = chunks
    assert last.choices == []
    known = {"prompt_tokens_details"}  # by then
    assert last.usage.model_dump(exclude=known) == whole.usage.model_dump(exclude=known)
    assert all(chunk.usage is None for chunk in body)
    for index in (0, 1):
        deltas = [choice for chunk in body for choice in chunk.choices if choice.index == index]
        assert deltas[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in deltas) == whole.choices[index].message.content
        assert [one.finish_reason for one in deltas if one.finish_reason] == [whole.choices[index].finish_reason]
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_without_include_usage_nothing_says_it(client):
    stream = client.completions.create(model="base", prompt="def f(", max_tokens=4, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_async(served):
    async def talk():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="another", max_retries=0) as client:
            asked = [
                client.completions.create(model="base", prompt=f"def f{i}(", temperature=0, max_tokens=8)
                for i in range(12)
            ]
            together = await asyncio.gather(*asked)
            alone = await client.completions.create(model="base", prompt="def f3(", temperature=0, max_tokens=8)
            text = ""
            stream = await client.chat.completions.create(
                model="base", messages=ASK, stream=True, temperature=0, max_tokens=8
            )
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
            return together, alone, text

    together, alone, text = asyncio.run(talk())
    assert together[3].choices[0].text == alone.choices[0].text  # whoever runs beside it
    assert text


def test_stop_strings_end_a_text_before_them(client):
    whole = client.completions.create(model="base", prompt="def add(a, b):", temperature=0, max_tokens=40)
    stop = whole.choices[0].text[10:13]
    cut = client.completions.create(model="base", prompt="def add(a, b):", temperature=0, max_tokens=40, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].text == whole.choices[0].text.partition(stop)[0]
    assert 0 < cut.usage.completion_tokens < 40
    pieces = client.completions.create(
        model="base", prompt="def add(a, b):", temperature=0, max_tokens=40, stop=stop, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in pieces) == cut.choices[0].text


def test_logprobs(client):
    chat = client.chat.completions.create(
        model="base", messages=ASK, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    )
    content = chat.choices[0].logprobs.content
    assert len(content) == 5
    assert all(len(one.top_logprobs) == 3 and one.logprob == one.top_logprobs[0].logprob <= 0 for one in content)
    old = client.completions.create(model="base", prompt="def f(", temperature=0, max_tokens=5, logprobs=2)
    lists = old.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == 5
    assert "".join(lists.tokens) == old.choices[0].text


def test_logit_bias(client, served):
    first = client.completions.create(model="base", prompt="def f(", temperature=0, max_tokens=1)
    drawn = served.model.tokenizer.encode("x")[0]
    forced = client.completions.create(
        model="base", prompt="def f(", temperature=0, max_tokens=1, logit_bias={str(drawn): 100}
    )
    assert forced.choices[0].text == served.model.tokenizer.decode([drawn])
    assert forced.choices[0].text != first.choices[0].text


def test_several_prompts_at_once(client):
    made = client.completions.create(model="base", prompt=["def a(", "def b(", "import "], n=2, max_tokens=3, seed=1)
    assert [choice.index for choice in made.choices] == list(range(6))
    assert made.usage.completion_tokens == 18
    chunks = list(
        client.completions.create(
            model="base", prompt=["def a(", "def b(", "import "], n=2, max_tokens=3, seed=1, stream=True
        )
    )
    for choice in made.choices:
        text = "".join(one.text for chunk in chunks for one in chunk.choices if one.index == choice.index)
        assert text == choice.text


def test_the_context_is_never_cut(client, served):
    limit = served.model.context
    ids = [5] * (limit - 4)
    fits = client.completions.create(model="base", prompt=ids, max_tokens=4, extra_body={"ignore_eos": True})
    assert fits.usage.total_tokens == limit
    for extra, tokens in ((5, limit - 4), (1, limit), (1, limit + 1), (1, limit * 10)):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="base", prompt=[5] * tokens, max_tokens=extra)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == "prompt"
        assert str(limit) in caught.value.message
        assert str(tokens) in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "def " * 2000}])
    assert caught.value.code == "context_length_exceeded"
    chat = client.chat.completions.create(model="base", messages=ASK, extra_body={"ignore_eos": True})
    assert chat.usage.total_tokens == limit  # no max_tokens: until the context is full, and it says so
    assert chat.choices[0].finish_reason == "length"
