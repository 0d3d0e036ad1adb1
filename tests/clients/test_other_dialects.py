"""The anthropic and ollama clients, unmodified; what they hear is what OpenAI's dialect says."""

import anthropic
import ollama
import pytest

pytestmark = pytest.mark.native
ASK = [{"role": "user", "content": "Write a function that adds two numbers."}]
COLD = {"temperature": 0}  # newer clients have no argument for it


@pytest.fixture
def claude(served):
    with anthropic.Anthropic(base_url=served.url, api_key="test-key", max_retries=0) as client:
        yield client


@pytest.fixture
def llama(served):
    client = ollama.Client(host=served.url, headers={"authorization": "Bearer test-key"}, trust_env=False)
    yield client
    client._client.close()


def greedy(served, count, messages=ASK):
    return served.ask(
        "/v1/chat/completions", {"model": "base", "messages": messages, "temperature": 0, "max_tokens": count}
    ).json()  # fmt: skip


def test_messages(claude, served):
    made = claude.messages.create(model="base", max_tokens=20, extra_body=COLD, system="Be brief.", messages=ASK)
    same = greedy(served, 20, [{"role": "system", "content": "Be brief."}, *ASK])
    assert made.content[0].text == same["choices"][0]["message"]["content"]
    assert made.stop_reason == "max_tokens"
    assert made.usage.input_tokens == same["usage"]["prompt_tokens"]
    assert made.usage.output_tokens == 20
    counted = claude.messages.count_tokens(model="base", system="Be brief.", messages=ASK)
    assert counted.input_tokens == made.usage.input_tokens


def test_messages_stream(claude, served):
    with claude.messages.stream(model="base", max_tokens=20, extra_body=COLD, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == greedy(served, 20)["choices"][0]["message"]["content"]
    assert final.usage.output_tokens == 20
    assert final.stop_reason == "max_tokens"


def test_stop_sequences(claude, served):
    stop = greedy(served, 20)["choices"][0]["message"]["content"][4:7]
    made = claude.messages.create(model="base", max_tokens=20, extra_body=COLD, messages=ASK, stop_sequences=[stop])
    assert made.stop_reason == "stop_sequence"
    assert made.stop_sequence == stop
    assert stop not in made.content[0].text


def test_errors_are_anthropics(claude, served):
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="nope", max_tokens=5, messages=ASK)
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model="base", max_tokens=5000, messages=ASK)
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    for extra in ({"tools": [{"name": "a b", "input_schema": {}}]}, {"thinking": {"type": "enabled"}}, {"mood": 1}):
        answer = served.ask("/v1/messages", {"model": "base", "max_tokens": 5, "messages": ASK, **extra})
        assert answer.status_code == 400
        assert next(iter(extra)) in answer.json()["error"]["message"]


def test_ollama_chat(llama, served):
    same = greedy(served, 15)
    settings = {"model": "base", "messages": ASK, "options": {"temperature": 0, "num_predict": 15}}
    made = llama.chat(**settings)
    assert made.message.content == same["choices"][0]["message"]["content"]
    assert (made.prompt_eval_count, made.eval_count) == (same["usage"]["prompt_tokens"], 15)
    assert made.done
    assert made.done_reason == "length"
    assert made.total_duration >= made.prompt_eval_duration > 0
    *parts, last = llama.chat(**settings, stream=True)
    assert "".join(part.message.content for part in parts) == made.message.content
    assert last.done
    assert last.eval_count == 15


def test_ollama_generate(llama, served):
    raw = llama.generate(model="base", prompt="def f(", raw=True, options={"temperature": 0, "num_predict": 9})
    body = {"model": "base", "prompt": "def f(", "temperature": 0, "max_tokens": 9}
    assert raw.response == served.ask("/v1/completions", body).json()["choices"][0]["text"]
    chat = llama.generate(model="base", prompt=ASK[0]["content"], options={"temperature": 0, "num_predict": 9})
    assert chat.response == greedy(served, 9)["choices"][0]["message"]["content"]


def test_ollama_says_what_is_there(llama, served):
    assert [model.model for model in llama.list().models] == ["base"]
    assert [model.model for model in llama.ps().models] == ["base"]
    assert llama.show("base:latest").modelinfo["general.architecture"] == "llama"
    assert served.ask("/api/version").json()["version"]
    vectors = llama.embed(model="base", input=["a = 1", "b = 2"])
    assert len(vectors.embeddings) == 2


@pytest.mark.parametrize(
    "extra",
    [{"format": "yaml"}, {"format": {"enum": []}}, {"think": True}, {"options": {"mirostat": 1}},
     {"options": {"num_ctx": 1 << 20}},
     {"options": {"top_p": 7}}, {"mood": 1}],
    ids=str,
)  # fmt: skip
def test_ollama_refuses_by_name(llama, served, extra):
    answer = served.ask("/api/chat", {"model": "base", "messages": ASK, **extra})
    assert answer.status_code == 400
    inner = extra.get("options", extra)
    assert next(iter(inner)) in answer.json()["error"]
