"""Structured output as real clients ask for it: what comes fits, streamed or whole."""

import json
import re

import anthropic
import ollama
import openai
import pydantic
import pytest

pytestmark = pytest.mark.native
ASK = [{"role": "user", "content": "Describe a city."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "size": {"enum": ["small", "größer"]}},
    "required": ["city", "size"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


class City(pydantic.BaseModel, extra="forbid"):  # else a model that knows nothing goes on with further keys
    name: str = pydantic.Field(max_length=6)
    people: int = pydantic.Field(ge=0, le=1000)
    twins: list["City"] = pydantic.Field(max_length=0)


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


def fits(text):
    value = json.loads(text)
    assert set(value) == {"city", "size"}
    assert len(value["city"]) <= 8
    assert value["size"] in ("small", "größer")


def test_response_format(client):
    settings = {"model": "base", "messages": ASK, "max_tokens": 90, "temperature": 1.0, "seed": 4, "n": 2}
    made = client.chat.completions.create(**settings, response_format=FORMAT)
    for choice in made.choices:
        assert choice.finish_reason == "stop"
        fits(choice.message.content)
    text = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**settings, response_format=FORMAT, stream=True):
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
    assert text == {choice.index: choice.message.content for choice in made.choices}


def test_parse_into_pydantic(client):
    made = client.chat.completions.parse(
        model="base", messages=ASK, response_format=City, max_tokens=120, temperature=0.8, seed=1
    )
    city = made.choices[0].message.parsed
    assert isinstance(city, City)
    assert city.twins == []


def test_stream_into_pydantic(client):
    with client.chat.completions.stream(
        model="base", messages=ASK, response_format=City, max_tokens=120, temperature=0.8, seed=1
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)
    assert "".join(deltas) == final.choices[0].message.content


def test_json_object_cut_by_max_tokens(client):
    made = client.chat.completions.create(
        model="base", messages=ASK, response_format={"type": "json_object"}, max_tokens=4, temperature=0
    )
    assert made.choices[0].finish_reason == "length"
    assert made.choices[0].message.content.startswith("{")
    assert made.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [({"structured_outputs": {"regex": "[A-Z]{3}-[0-9]{2}"}}, "[A-Z]{3}-[0-9]{2}"),
     ({"structured_outputs": {"choice": ["left", "right"]}}, "left|right"),
     ({"structured_outputs": {"grammar": 'start: "a" /[xy]/'}}, "a[xy]"),
     ({"structured_outputs": {"json": {"const": "x"}}}, '"x"'),
     ({"guided_choice": ["left", "right"]}, "left|right"), ({"guided_regex": "[01]{4}"}, "[01]{4}"),
     ({"guided_json": {"enum": [7, 11]}}, "7|11"), ({"guided_grammar": 'root ::= "b" [01]'}, "b[01]")],
    ids=str,
)  # fmt: skip
def test_vllm_s_names(client, extra, pattern):
    made = client.chat.completions.create(model="base", messages=ASK, max_tokens=30, seed=2, extra_body=extra)
    assert re.fullmatch(pattern, made.choices[0].message.content)
    again = client.completions.create(model="base", prompt="x = ", max_tokens=30, seed=2, extra_body=extra)
    assert re.fullmatch(pattern, again.choices[0].text)


def test_impossible_ones_are_refused(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="base", messages=ASK, max_tokens=30,
            response_format={"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"type": "integer", "minimum": 3, "maximum": 2}}},
        )  # fmt: skip
    assert caught.value.body["param"] == "response_format.json_schema.schema"
    assert "minimum" in caught.value.body["message"]


def test_ollama_s_format(served):
    client = ollama.Client(host=served.url, headers={"authorization": "Bearer test-key"}, trust_env=False)
    options = {"num_predict": 90, "temperature": 1.0, "seed": 4}
    fits(client.chat(model="base", messages=ASK, format=SCHEMA, options=options).message.content)
    parts = client.generate(model="base", prompt="A city.", format=SCHEMA, options=options, stream=True)
    fits("".join(part.response for part in parts))
    shape = City.model_json_schema()
    city = client.chat(model="base", messages=ASK, format=shape, options=options)
    City.model_validate_json(city.message.content)
    any_object = client.chat(model="base", messages=ASK, format="json", options={"num_predict": 5})
    assert any_object.message.content.startswith("{")
    client._client.close()


def test_anthropic_s_output_format(served):
    with anthropic.Anthropic(base_url=served.url, api_key="test-key", max_retries=0) as client:
        made = client.messages.create(
            model="base", max_tokens=90, messages=ASK,
            extra_body={"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        )  # fmt: skip
        fits(made.content[0].text)
