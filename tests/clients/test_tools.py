"""Tools as real clients call them, in every family's way of writing calls; whole and streamed."""

import json
from dataclasses import replace

import anthropic
import jsonschema
import ollama
import openai
import pytest

from edgewise.base import BadInput, SamplingParams
from edgewise.serve.llm import LLM
from edgewise.text.chat import JinjaChatTemplate

pytestmark = pytest.mark.native
ASK = [{"role": "user", "content": "What is the weather in Rome, and what is 2 + 3?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Now.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "add", "parameters": ADD, "strict": True}},
]
SCHEMAS = {"get_weather": WEATHER, "add": ADD}
LOOP = (
    "{% for m in messages %}# {{ m.role }}: {{ m.content }}\n"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }})\n{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}# assistant:\n{% endif %}"
)
TEMPLATES = {  # nothing but the marks by which a family is known
    "none": None,
    "hermes": "{% if tools %}{{ tools | tojson }} <tool_call>\n{% endif %}" + LOOP,
    "llama3": "{% if tools %}{{ tools | tojson }} <|python_tag|>\n{% endif %}" + LOOP,
    "mistral": "{% if tools %}{{ tools | tojson }} [TOOL_CALLS]\n{% endif %}" + LOOP,
}
DRAWN = {"model": "base", "messages": ASK, "temperature": 1.0, "max_tokens": 300}


@pytest.fixture(params=list(TEMPLATES))
def family(request, served, monkeypatch):
    if TEMPLATES[request.param] is not None:
        monkeypatch.setattr(served.model, "template", JinjaChatTemplate({"default": TEMPLATES[request.param]}, {}))
    return request.param


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


def check(calls):
    for call in calls:
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


def streamed(client, **settings):
    """Content, calls and finish_reason put together from deltas, each delta's shape checked."""
    content, calls, reason = "", {}, None
    for chunk in client.chat.completions.create(**settings, stream=True):
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        for delta in choice.delta.tool_calls or []:
            if delta.index not in calls:
                assert delta.id
                assert delta.type == "function"
                assert delta.function.name
                assert delta.function.arguments == ""
                calls[delta.index] = [delta.id, delta.function.name, ""]
            else:
                assert delta.id is delta.type is delta.function.name is None
                calls[delta.index][2] += delta.function.arguments
        reason = choice.finish_reason or reason
    assert list(calls) == list(range(len(calls)))
    return content, [calls[at] for at in calls], reason


def test_required(client, family):
    settings = {**DRAWN, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": 3}
    made = client.chat.completions.create(**settings).choices[0]
    assert made.finish_reason == "tool_calls"
    assert made.message.content is None
    assert len(made.message.tool_calls) == 1
    check(made.message.tool_calls)
    content, calls, reason = streamed(client, **settings)
    assert (content, reason) == ("", "tool_calls")
    (call,) = made.message.tool_calls
    assert [call[1:] for call in calls] == [[call.function.name, call.function.arguments]]
    assert len(call.id) == (9 if family == "mistral" else 29)


def test_named(client, family):
    choice = {"type": "function", "function": {"name": "add"}}
    made = client.chat.completions.create(**DRAWN, tools=TOOLS, tool_choice=choice, seed=1).choices[0]
    assert [call.function.name for call in made.message.tool_calls] == ["add"]
    check(made.message.tool_calls)
    assert made.finish_reason == "tool_calls"


def test_auto_is_text_until_a_call_is_opened(client, family, served):
    said = client.chat.completions.create(**DRAWN | {"max_tokens": 12, "temperature": 0}, tools=TOOLS).choices[0]
    assert said.message.tool_calls is None
    assert said.finish_reason == "length"
    mark = {"llama3": '{"name": "', "mistral": "[TOOL_CALLS]"}.get(family, "<tool_call>")
    bias = {str(token): 100 for token in set(served.model.tokenizer.encode(mark))}
    forced = {**DRAWN, "tools": TOOLS, "parallel_tool_calls": False, "logit_bias": bias, "max_tokens": 40}
    content, calls, reason = streamed(client, **forced)  # it writes the mark's tokens as often as it can
    assert reason in ("length", "tool_calls")
    assert content or calls


def test_parallel(client, family):
    settings = {**DRAWN, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200, "n": 2}
    found = 0
    for seed in (2, 3):
        for choice in client.chat.completions.create(**settings, seed=seed).choices:
            *whole, last = choice.message.tool_calls
            check(whole)
            if choice.finish_reason == "tool_calls":
                check([last])
            assert len({call.id for call in choice.message.tool_calls}) == len(whole) + 1
            found = max(found, len(whole) + 1)
    assert found > 1 or family == "llama3"


def test_results_go_back(client, family, served):
    calls = [{"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": true}'}}]
    talk = [*ASK, {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "five"}]  # fmt: skip
    made = client.chat.completions.create(**DRAWN | {"messages": talk, "max_tokens": 5}, tools=TOOLS)
    assert made.usage.prompt_tokens > 100  # the description of the tools is there


def test_none_and_no_tools_are_plain_chats(client, family):
    settings = {**DRAWN, "temperature": 0, "max_tokens": 8}
    plain = client.chat.completions.create(**settings)
    for more in ({"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        assert client.chat.completions.create(**settings, **more).choices[0] == plain.choices[0]


def test_a_call_that_is_cut_says_length(client, family):
    settings = {**DRAWN, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    _, calls, reason = streamed(client, **settings | {"max_tokens": 22, "temperature": 0})
    assert reason == "length"
    assert len(calls) <= 1


def test_response_format_beside_tools(client, family):
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    settings = {**DRAWN, "tools": TOOLS, "response_format": shape, "max_tokens": 60}
    if family == "llama3":
        with pytest.raises(openai.BadRequestError, match="exclude"):
            client.chat.completions.create(**settings)
        return
    made = client.chat.completions.create(**settings, seed=1).choices[0]
    assert made.message.tool_calls or json.loads(made.message.content) in ("yes", "no")


def test_stream_helper_of_the_client(client):
    with client.chat.completions.stream(
        **DRAWN, tools=[openai.pydantic_function_tool(_model(), name="add")], tool_choice="required", seed=5,
        parallel_tool_calls=False,
    ) as stream:  # fmt: skip
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert "tool_calls.function.arguments.delta" in kinds
    assert 0 <= call.function.parsed_arguments.a <= 9


def _model():
    import pydantic

    class Add(pydantic.BaseModel):
        a: int = pydantic.Field(ge=0, le=9)

    return Add


def test_anthropic(served, family):
    tools = [{"name": "add", "description": "Adds.", "input_schema": ADD}, {"name": "now", "input_schema": {}}]
    choice = {"type": "any", "disable_parallel_tool_use": True}
    settings = {"model": "base", "max_tokens": 200, "tools": tools, "tool_choice": choice, "messages": ASK}
    with anthropic.Anthropic(base_url=served.url, api_key="test-key", max_retries=0) as claude:
        made = claude.messages.create(**settings)
        (use,) = made.content
        assert (use.type, made.stop_reason) == ("tool_use", "tool_use")
        jsonschema.validate(use.input, ADD if use.name == "add" else {"maxProperties": 0})
        with claude.messages.stream(**settings | {"tool_choice": {"type": "tool", "name": "add"}}) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_message()
        (block,) = final.content
        jsonschema.validate(block.input, ADD)
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
        back = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "five"}]}
        talk = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "I add."}, block.model_dump()]},
                {"role": "user", "content": [back, {"type": "text", "text": "Well?"}]}]  # fmt: skip
        talk[1]["content"][1] = {key: talk[1]["content"][1][key] for key in ("type", "id", "name", "input")}
        said = claude.messages.create(model="base", max_tokens=6, tools=tools, messages=talk)
        assert said.stop_reason == "max_tokens"
        counted = claude.messages.count_tokens(model="base", tools=tools, messages=talk)
        assert counted.input_tokens == said.usage.input_tokens
        with claude.messages.stream(model="base", max_tokens=6, tools=tools, messages=talk) as stream:
            assert stream.get_final_message().stop_reason == "max_tokens"


def test_ollama(served, family):
    client = ollama.Client(host=served.url, headers={"authorization": "Bearer test-key"}, trust_env=False)
    try:
        called = [{"function": {"name": "add", "arguments": {"a": 1}}}]
        past = [{"role": "assistant", "content": "", "tool_calls": called},
                {"role": "tool", "content": "five", "tool_name": "add"}]  # fmt: skip
        options = {"num_predict": 6, "seed": 1}
        made = client.chat(model="base", messages=[*ASK, *past], tools=TOOLS, options=options)
        assert made.done_reason == "length"
        assert made.prompt_eval_count > 100
        assert list(client.chat(model="base", messages=ASK, tools=TOOLS, options=options, stream=True))[-1].done
        assert "tools" in client.show("base").capabilities
    finally:
        client._client.close()


def test_ollama_tells_calls_whole(served, monkeypatch):
    """Its clients know no tool_choice: the way of calling is one that always calls."""
    from edgewise.serve import tools as module

    asked = module.Asked
    monkeypatch.setattr("edgewise.serve.http.calling.Asked", lambda tools, *_: asked(tools, True, None, False))
    client = ollama.Client(host=served.url, headers={"authorization": "Bearer test-key"}, trust_env=False)
    try:
        settings = {"model": "base", "messages": ASK, "tools": TOOLS, "options": {"num_predict": 200, "seed": 2}}
        (call,) = client.chat(**settings).message.tool_calls
        sent = ollama.Tool(**next(one for one in TOOLS if one["function"]["name"] == call.function.name))
        jsonschema.validate(  # this client leaves out what its own types do not have, as maxLength
            dict(call.function.arguments), sent.function.parameters.model_dump(exclude_none=True)
        )
        parts = list(client.chat(**settings, stream=True))
        assert [one.function for part in parts for one in part.message.tool_calls or ()] == [call.function]
        assert parts[-1].done_reason == "stop"
    finally:
        client._client.close()


REFUSED = [
    ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
    ({"tools": [{"type": "web"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
    ({"tools": [TOOLS[0], {"type": "function", "function": {"name": "x", "parameters": {"properties": 3}}}]},
     "tools[1].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"properties": {"a": {"type": "no"}}}}}]},
     "tools[0].function.parameters"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice"),
    ({"tools": TOOLS, "guided_regex": "a"}, "tools"),
    ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"functions": [{}]}, "functions"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "param"), REFUSED, ids=str)
def test_the_field_is_named(served, extra, param):
    answer = served.ask("/v1/chat/completions", {"model": "base", "messages": ASK, **extra})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_an_unknown_way_of_calling_is_refused(served, monkeypatch):
    template = JinjaChatTemplate({"default": "{{ tools }}<tool_call><function=" + LOOP}, {})
    monkeypatch.setattr(served.model, "template", template)
    answer = served.ask("/v1/chat/completions", {"model": "base", "messages": ASK, "tools": TOOLS})
    assert answer.status_code == 400
    assert "hermes" in answer.json()["error"]["message"]


FLAT = [{"type": "function", **tool["function"]} for tool in TOOLS]
ASKED = {"model": "base", "input": ASK, "temperature": 1.0, "max_output_tokens": 300}
ONE = {**ASKED, "tools": FLAT, "parallel_tool_calls": False, "extra_body": {"seed": 3}}


def check_items(items):
    assert items
    for item in items:
        assert item.type == "function_call"
        assert item.status == "completed"
        assert item.call_id
        jsonschema.validate(json.loads(item.arguments), SCHEMAS[item.name])


def test_responses_call_tools(client, family):
    for choice in ("required", {"type": "function", "name": "add"}):
        made = client.responses.create(**ONE, tool_choice=choice)
        assert made.status == "completed"
        check_items(made.output)
        assert len(made.output) == 1
        assert choice == "required" or [item.name for item in made.output] == ["add"]
    assert made.tools[1].name == "add"
    assert made.tool_choice.name == "add"
    free = client.responses.create(**{**ASKED, "temperature": 0, "max_output_tokens": 8}, tools=FLAT)
    assert free.output[0].type in ("message", "function_call")
    none = client.responses.create(**{**ASKED, "max_output_tokens": 8}, tools=FLAT, tool_choice="none")
    assert [item.type for item in none.output] == ["message"]


def test_responses_stream_calls(client, family):
    settings = {**ONE, "tool_choice": "required", "extra_body": {"seed": 5}}
    whole = client.responses.create(**settings)
    assert whole.status == "completed"
    events = list(client.responses.create(**settings, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1].response
    assert events[-1].type == f"response.{whole.status}"
    assert [(one.name, one.arguments) for one in final.output] == [(one.name, one.arguments) for one in whole.output]
    for item in final.output:
        mine = [event for event in events if getattr(event, "item_id", "") == item.id]
        *deltas, done = mine
        assert {event.type for event in deltas} == {"response.function_call_arguments.delta"}
        assert done.type == "response.function_call_arguments.done"
        assert "".join(event.delta for event in deltas) == done.arguments == item.arguments
        assert done.name == item.name
        added, ended = (
            next(e for e in events if e.type == f"response.output_item.{what}" and e.output_index == done.output_index)
            for what in ("added", "done")
        )
        assert (added.item.arguments, added.item.status) == ("", "in_progress")
        assert ended.item == item
    with client.responses.stream(**ONE, tool_choice="required") as stream:
        for _ in stream:
            pass
        helped = stream.get_final_response()
    check_items(helped.output)


def test_responses_take_calls_and_results_back(client, served, family):
    first = client.responses.create(**ONE, tool_choice="required")
    results = [{"type": "function_call_output", "call_id": one.call_id, "output": "21 C"} for one in first.output]
    cold = {**ASKED, "temperature": 0, "max_output_tokens": 12}
    kept = client.responses.create(**{**cold, "input": results}, tools=FLAT, previous_response_id=first.id)
    whole = client.responses.create(**{**cold, "input": [*ASK, *first.output, *results]}, tools=FLAT)
    assert kept.usage.input_tokens == whole.usage.input_tokens
    assert kept.output_text == whole.output_text
    calls = [{"id": one.call_id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
             for one in first.output]  # fmt: skip
    told = [{"role": "tool", "tool_call_id": one["call_id"], "content": one["output"]} for one in results]
    same = served.ask("/v1/chat/completions", {
        "messages": [*ASK, {"role": "assistant", "content": "", "tool_calls": calls}, *told], "tools": TOOLS,
        "temperature": 0, "max_tokens": 12,
    }).json()  # fmt: skip
    assert same["usage"]["prompt_tokens"] == whole.usage.input_tokens


def test_a_cut_call_is_incomplete(client):
    made = client.responses.create(**{**ASKED, "max_output_tokens": 12}, tools=FLAT[1:], tool_choice="required",
                                   extra_body={"seed": 5})  # fmt: skip
    assert made.status == made.output[-1].status == "incomplete"


@pytest.mark.parametrize(("more", "param"), [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "f", "colour": 1}]}, "tools[0].colour"),
    ({"tools": [{"type": "function", "name": "f"}] * 2}, "tools"),
    ({"tools": FLAT, "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
    ({"tools": FLAT, "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].output"),
    ({"input": [{"type": "computer_call", "call_id": "x"}]}, "input[0].type"),
])
def test_responses_name_what_is_wrong_with_tools(served, more, param):  # fmt: skip
    answer = served.ask("/v1/responses", {"input": "x", "max_output_tokens": 4, **more})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("family", list(TEMPLATES))
def test_chat_in_python_calls_tools(served, family):
    params = SamplingParams(temperature=1.0, max_tokens=300, seed=5)
    template = TEMPLATES[family]
    chat = served.model.template if template is None else JinjaChatTemplate({"default": template}, {})
    with LLM(threads=1, max_num_seqs=2) as llm:
        llm._assembly = replace(llm.parts, template=chat)
        made = llm.chat(ASK, params, tools=TOOLS, tool_choice="required")
        (choice,) = made["choices"]
        calls = choice["message"]["tool_calls"]
        for call in calls if choice["finish_reason"] == "tool_calls" else calls[:-1]:
            jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "5"} for call in calls]
        cold = SamplingParams(temperature=0, max_tokens=8)
        again = llm.chat([*ASK, choice["message"], *results], cold, tools=TOOLS)
        assert again["usage"]["prompt_tokens"] > made["usage"]["prompt_tokens"]
        named = {"type": "function", "function": {"name": "add"}}
        (only,) = llm.chat(ASK, params, tools=TOOLS, tool_choice=named)["choices"]
        assert [call["function"]["name"] for call in only["message"]["tool_calls"]] == ["add"]
        assert only["finish_reason"] == "tool_calls"
        for wrong in ({"tools": [{"name": "f"}]}, {"tool_choice": "required"}, {"tools": TOOLS, "tool_choice": "any"}):
            with pytest.raises(BadInput, match="tool"):
                llm.chat(ASK, params, **wrong)
