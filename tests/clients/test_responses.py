"""/v1/responses through openai-python, unmodified: sync, async, streamed, going on, and refused by name."""

import asyncio
import json

import openai
import pytest

from edgewise.serve.http.remembered import Remembered

pytestmark = pytest.mark.native
ASK = "Write a function that adds two numbers."
COLD = {"model": "base", "temperature": 0, "max_output_tokens": 20}
ORDER = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.output_text.delta", "response.output_text.done", "response.content_part.done",
    "response.output_item.done",
]  # fmt: skip


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


def chat(served, messages, count=20):
    body = {"model": "base", "messages": messages, "temperature": 0, "max_tokens": count}
    return served.ask("/v1/chat/completions", body).json()


def test_a_response_is_the_chat(client, served):
    made = client.responses.create(**COLD, input=ASK, instructions="Be brief.", metadata={"a": "b"})
    same = chat(served, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}])
    assert made.output_text == same["choices"][0]["message"]["content"]
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.usage.input_tokens == same["usage"]["prompt_tokens"]
    assert made.usage.output_tokens == 20
    assert made.usage.total_tokens == made.usage.input_tokens + 20
    assert (made.object, made.model, made.error, made.metadata) == ("response", "base", None, {"a": "b"})
    assert made.instructions == "Be brief."
    parts = [{"role": "user", "content": [{"type": "input_text", "text": ASK}]}]
    again = client.responses.create(**COLD, input=parts, instructions="Be brief.", metadata={"a": "b"})
    assert again.output_text == made.output_text


def test_the_end_of_an_answer_is_completed(client):
    whole = client.responses.create(**COLD, input=ASK).output_text
    made = client.responses.create(**COLD, input=ASK, extra_body={"stop": whole[6:9]})
    assert made.status == "completed"
    assert made.incomplete_details is None
    assert made.output_text == whole.partition(whole[6:9])[0]
    assert made.output[0].status == "completed"


def test_events_come_in_order(client, served):
    whole = client.responses.create(**COLD, input=ASK)
    events = list(client.responses.create(**COLD, input=ASK, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == [*ORDER, "response.incomplete"]
    assert all(kinds.count(kind) == 1 for kind in kinds if kind != "response.output_text.delta")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    final = events[-1].response
    assert final.output_text == text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.total_tokens == whole.usage.total_tokens
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1
    assert len({event.item_id for event in events if hasattr(event, "item_id")} | {final.output[0].id}) == 1


def test_the_stream_helper_gets_a_whole_response(client):
    stop = client.responses.create(**COLD, input=ASK).output_text[6:9]
    with client.responses.stream(**COLD, input=ASK, extra_body={"stop": stop}) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text == "".join(deltas)


def test_logprobs(client):
    made = client.responses.create(
        **{**COLD, "max_output_tokens": 4}, input=ASK, include=["message.output_text.logprobs"], top_logprobs=2
    )
    found = made.output[0].content[0].logprobs
    assert len(found) == 4
    assert all(len(entry.top_logprobs) == 2 for entry in found)


def test_a_schema_is_kept_to(client):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    made = client.responses.create(
        **{**COLD, "max_output_tokens": 80}, input=ASK,
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert json.loads(made.output_text)["a"] in (1, 2)
    assert made.status == "completed"
    assert made.text.format.schema_ == schema


def test_it_goes_on(client, served):
    first = client.responses.create(**COLD, input=ASK, instructions="Be brief.")
    second = client.responses.create(**COLD, input="And now three.", previous_response_id=first.id)
    talk = [
        {"role": "user", "content": ASK}, {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And now three."},
    ]  # fmt: skip
    assert second.output_text == chat(served, talk)["choices"][0]["message"]["content"]
    assert second.previous_response_id == first.id
    by_hand = client.responses.create(
        **COLD, input=[{"role": "user", "content": ASK}, *first.output, {"role": "user", "content": "And now three."}]
    )
    assert by_hand.output_text == second.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    unkept = client.responses.create(**COLD, input=ASK, store=False)
    for gone in (first.id, unkept.id, "resp_0"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**COLD, input="x", previous_response_id=gone)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_cached_tokens_are_those_that_were_not_computed(client, served):
    """The first part of a prompt, in whole pages, is known from the request before."""
    page = served.model.llm.parts.engine.page_tokens
    engine = served.model.llm.parts.engine
    text = "a prompt that nobody has sent before, and long enough for some pages of the cache: " + "12345 " * 20
    first = client.responses.create(**COLD, input=text)
    assert first.usage.input_tokens_details.cached_tokens < page
    before = engine.reused_tokens
    again = client.responses.create(**COLD, input=text)
    cached = again.usage.input_tokens_details.cached_tokens
    assert cached == engine.reused_tokens - before
    assert first.usage.input_tokens - page <= cached < first.usage.input_tokens


def test_async(served):
    async def talk():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as client:
            many = await asyncio.gather(*(client.responses.create(**COLD, input=f"{ASK} {i}") for i in range(6)))
            text = ""
            async for event in await client.responses.create(**COLD, input=f"{ASK} 4", stream=True):
                text += event.delta if event.type == "response.output_text.delta" else ""
            return many[4].output_text, text

    together, alone = asyncio.run(talk())
    assert together == alone != ""


def test_memory_is_bounded():
    store = Remembered(3, 20_000)
    for at in range(5):
        store.keep({"id": str(at)}, [{"content": "x"}])
    assert [store.find(str(at)) is not None for at in range(5)] == [False, False, True, True, True]
    store.keep({"id": "big"}, [{"content": "x" * 15_000}])
    assert store.find("big") is not None
    assert store._used <= 20_000
    store.keep({"id": "vast"}, [{"content": "x" * 30_000}])
    assert store.find("vast") is None
    assert store._used >= 0


REFUSED = [
    ({}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"),
    ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0].encrypted_content"),
    ({"input": "x", "max_tokens": 3}, "max_tokens"), ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "x", "background": True}, "background"), ({"input": "x", "truncation": "auto"}, "truncation"),
    ({"input": "x", "conversation": "c"}, "conversation"), ({"input": "x", "prompt": {"id": "x"}}, "prompt"),
    ({"input": "x", "max_tool_calls": 3}, "max_tool_calls"), ({"input": "x", "n": 2}, "n"),
    ({"input": "x", "include": ["reasoning.encrypted_content"]}, "include[0]"),
    ({"input": "x", "top_logprobs": 3}, "top_logprobs"), ({"input": "x", "stream_options": {}}, "stream_options"),
    ({"input": "x", "store": 1}, "store"), ({"input": "x", "instructions": ["x"]}, "instructions"),
    ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
    ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"input": "x", "text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"input": "x", "service_tier": "flex"}, "service_tier"), ({"input": "x", "mood": 1}, "mood"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_the_field_is_named(served, body, param):
    answer = served.ask("/v1/responses", {"model": "base", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_failure_is_an_event(served, monkeypatch):
    """The answer has begun with 200 by then."""
    monkeypatch.setattr(
        served.model.thread.engine.runner, "step", lambda work: (_ for _ in ()).throw(RuntimeError("broken"))
    )
    answer = served.ask("/v1/responses", {"model": "base", "input": "x", "stream": True})
    assert answer.text.rstrip().splitlines()[-2] == "event: response.failed"
    assert "server_error" in answer.text
