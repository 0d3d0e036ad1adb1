"""Models that think, on the embedded one with a template that says so and a script of what it writes."""

import json

import anthropic
import numpy as np
import ollama
import openai
import pytest

from edgewise.engine import loop
from edgewise.text.chat import JinjaChatTemplate

pytestmark = pytest.mark.native
ASK = [{"role": "user", "content": "hm?"}]
SOURCE = (
    "{% for m in messages %}{% if m.reasoning_content %}(<think>{{ m.reasoning_content }}</think>){% endif %}"
    "# {{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant:\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% if opened %}<think>\n{% endif %}{% endif %}"
)
THOUGHT, ANSWER = "one plus one\nis two", "def two():\n    return 2"


@pytest.fixture
def thinks(served, monkeypatch):
    monkeypatch.setattr(served.model, "template", JinjaChatTemplate({"default": SOURCE}, {}))
    return served


@pytest.fixture
def script(served, monkeypatch):
    """Makes the model write a text."""
    plain = loop.rules_for

    def write(text, *, goes_on=False):
        tokens = [*served.model.tokenizer.encode(text), min(served.model.llm.parts.engine.ends)]

        class Script:
            def apply(self, seq, logits):
                at = len(seq.tokens) - seq.prompt_tokens
                if goes_on and at >= len(tokens) - 1:
                    return logits
                logits.fill(-np.inf)
                logits[tokens[min(at, len(tokens) - 1)]] = 0
                return logits

        monkeypatch.setattr(loop, "rules_for", lambda *given: [Script(), *plain(*given)])
        return len(tokens)

    return write


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="test-key", max_retries=0) as made:
        yield made


OPENED = {"extra_body": {"chat_template_kwargs": {"opened": True}}}


@pytest.mark.parametrize(
    ("text", "more", "thought"),
    [
        (f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", {}, THOUGHT),
        (f"{THOUGHT}\n</think>\n\n{ANSWER}", OPENED, THOUGHT),
        (ANSWER, {}, None),
        (ANSWER, {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, None),
    ],
    ids=["tagged", "opened", "unthinking", "disabled"],
)
def test_chat(thinks, script, client, text, more, thought):
    count = script(text)
    made = client.chat.completions.create(model="base", messages=ASK, **more)
    message = made.choices[0].message
    assert message.content == ANSWER
    assert getattr(message, "reasoning_content", None) == thought
    assert made.choices[0].finish_reason == "stop"
    assert made.usage.completion_tokens == count
    chunks = list(
        client.chat.completions.create(
            model="base", messages=ASK, stream=True, stream_options={"include_usage": True}, **more
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == (thought or "")
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    known = {"prompt_tokens_details"}  # by then
    assert chunks[-1].usage.model_dump(exclude=known) == made.usage.model_dump(exclude=known)
    if thought:
        assert 5 < made.usage.completion_tokens_details.reasoning_tokens < count - 5


def test_a_hard_budget_ends_the_thought(thinks, script, client):
    script("thinking " * 200)
    for extra in ({"thinking": {"type": "enabled", "budget_tokens": 7}}, {"thinking_token_budget": 7}):
        body = {**extra, "chat_template_kwargs": {"opened": True}}
        made = client.chat.completions.create(model="base", messages=ASK, max_tokens=60, extra_body=body)
        assert 0 < len(made.choices[0].message.reasoning_content) < 60
        assert made.choices[0].message.content.startswith("thinking")
        closing = len(thinks.model.thinking.closing)
        assert made.usage.completion_tokens_details.reasoning_tokens == 7 + closing
    soft = {"thinking": {"budget_tokens": 7, "mode": "soft"}, "chat_template_kwargs": {"opened": True}}
    made = client.chat.completions.create(model="base", messages=ASK, max_tokens=60, extra_body=soft)
    assert made.choices[0].message.content == ""
    plain = client.chat.completions.create(model="base", messages=ASK, max_tokens=60, **OPENED)
    assert made.usage.prompt_tokens > plain.usage.prompt_tokens  # it was told


def test_effort(thinks, script, client):
    script("thinking " * 600)
    made = client.chat.completions.create(
        model="base", messages=ASK, reasoning_effort="minimal", max_tokens=400, **OPENED
    )
    closing = len(thinks.model.thinking.closing)
    assert made.usage.completion_tokens_details.reasoning_tokens == 256 + closing
    made = client.chat.completions.create(model="base", messages=ASK, reasoning_effort="none", max_tokens=40)
    assert made.choices[0].message.content.startswith("thinking")
    assert made.usage.completion_tokens_details is None


def test_stop_strings_are_for_the_answer(thinks, script, client):
    script(f"<think>{THOUGHT}</think>{ANSWER}")
    made = client.chat.completions.create(model="base", messages=ASK, stop=["two"])
    assert made.choices[0].message.reasoning_content == THOUGHT
    assert made.choices[0].message.content == "def "


def test_a_schema_is_for_the_answer(thinks, client):
    """Unscripted: the thought is free, and what follows it fits."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    made = client.chat.completions.create(
        model="base", messages=ASK, temperature=0, max_tokens=120,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        extra_body={"thinking": {"budget_tokens": 12}, "chat_template_kwargs": {"opened": True}},
    )  # fmt: skip
    assert made.choices[0].message.reasoning_content
    assert json.loads(made.choices[0].message.content)["a"] in (1, 2)


SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "pick", "parameters": SCHEMA}}


@pytest.mark.parametrize("budget", [3, 12])
@pytest.mark.parametrize("tools", [False, True])
def test_a_thought_that_the_model_begins_is_ended_before_what_is_prescribed(thinks, script, client, budget, tools):
    """The tag is several tokens here, and the end of the thought is forced; then a schema holds, or a call is made."""
    script("<think>one plus", goes_on=True)
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    wanted = {"tools": [TOOL], "tool_choice": "required"} if tools else {"response_format": shape}
    made = client.chat.completions.create(
        model="base", messages=ASK, temperature=0, max_tokens=300, **wanted,
        extra_body={"thinking": {"budget_tokens": budget}},
    )  # fmt: skip
    message = made.choices[0].message
    assert message.reasoning_content.startswith("one plus")
    assert made.usage.completion_tokens_details.reasoning_tokens <= budget + 8
    text = message.tool_calls[0].function.arguments if tools else message.content
    assert json.loads(text)["a"] in (1, 2)


def test_no_answer_is_missing_because_the_thought_ended_the_text(thinks, script, client):
    script("one plus", goes_on=True)
    ends = sorted(thinks.model.llm.parts.engine.ends)
    made = client.chat.completions.create(
        model="base", messages=ASK, temperature=0, max_tokens=200, logit_bias={str(end): 100 for end in ends},
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        extra_body={"thinking": {"budget_tokens": 12}, "chat_template_kwargs": {"opened": True}},
    )  # fmt: skip
    assert json.loads(made.choices[0].message.content)["a"] in (1, 2)


def test_responses(thinks, script, client):
    script(f"<think>{THOUGHT}</think>{ANSWER}")
    made = client.responses.create(model="base", input="hm?")
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.output[0].content[0].text == THOUGHT
    assert made.output_text == ANSWER
    assert made.usage.output_tokens_details.reasoning_tokens > 5
    with client.responses.stream(model="base", input="hm?") as stream:
        kinds = list(dict.fromkeys(event.type for event in stream))
        final = stream.get_final_response()
    assert final.output_text == ANSWER
    assert final.output[0].content[0].text == THOUGHT
    assert kinds.index("response.reasoning_text.delta") < kinds.index("response.reasoning_text.done")
    assert kinds.index("response.reasoning_text.done") < kinds.index("response.output_text.delta")
    longer = client.responses.create(model="base", input="and?", previous_response_id=made.id)
    assert longer.usage.input_tokens > made.usage.input_tokens + made.usage.output_tokens  # the thought goes along
    capped = client.responses.create(model="base", input="hm?", reasoning={"effort": "none"})
    assert capped.reasoning.effort == "none"


def test_anthropic(thinks, script):
    count = script(f"<think>{THOUGHT}</think>{ANSWER}")
    on = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    with anthropic.Anthropic(base_url=thinks.url, api_key="test-key", max_retries=0) as claude:
        made = claude.messages.create(model="base", max_tokens=200, messages=ASK, thinking={"type": "adaptive"})
        assert [(block.type) for block in made.content] == ["thinking", "text"]
        assert (made.content[0].thinking, made.content[1].text) == (THOUGHT, ANSWER)
        assert made.usage.output_tokens == count
        settings = {"model": "base", "max_tokens": 200, "messages": ASK, "thinking": {"type": "adaptive"}}
        with claude.messages.stream(**settings) as stream:
            kinds = list(dict.fromkeys(event.type for event in stream))
            final = stream.get_final_message()
        assert (final.content[0].thinking, final.content[1].text) == (THOUGHT, ANSWER)
        assert "thinking" in kinds
        again = claude.messages.create(
            model="base", max_tokens=200, thinking={"type": "adaptive"},
            messages=[*ASK, {"role": "assistant", "content": made.content}, *ASK],
        )  # fmt: skip
        assert again.usage.input_tokens > made.usage.input_tokens + count - 5
        with pytest.raises(anthropic.BadRequestError, match="budget_tokens"):
            claude.messages.create(model="base", max_tokens=200, messages=ASK, **on)
        script("thinking " * 100)
        off = claude.messages.create(model="base", max_tokens=20, messages=ASK)
        assert [block.type for block in off.content] == ["text"]
        short = thinks.ask(
            "/v1/messages", {"model": "base", "max_tokens": 60, "messages": ASK,
                             "thinking": {"type": "enabled", "budget_tokens": 5}},
        ).json()  # fmt: skip
        assert [block["type"] for block in short["content"]] == ["text"]  # it did not think at all


def test_ollama(thinks, script):
    script(f"<think>{THOUGHT}</think>{ANSWER}")
    llama = ollama.Client(host=thinks.url, headers={"authorization": "Bearer test-key"}, trust_env=False)
    made = llama.chat(model="base", messages=ASK, think=True)
    assert (made.message.thinking, made.message.content) == (THOUGHT, ANSWER)
    parts = list(llama.chat(model="base", messages=[*ASK, made.message, *ASK], think="low", stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == THOUGHT
    assert "".join(part.message.content or "" for part in parts) == ANSWER
    assert llama.generate(model="base", prompt="hm?", think=True).thinking == THOUGHT
    llama._client.close()


@pytest.mark.parametrize(
    ("path", "extra", "param"),
    [
        ("/v1/chat/completions", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("/v1/chat/completions", {"thinking": {"type": "enabled"}}, "thinking"),
        ("/v1/chat/completions", {"thinking_token_budget": 5}, "thinking_token_budget"),
        ("/v1/responses", {"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ],
)
def test_models_that_do_not_think_say_so(served, path, extra, param):
    asked = {"input": "x"} if path.endswith("responses") else {"messages": ASK}
    answer = served.ask(path, {"model": "base", **asked, **extra})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert served.ask("/api/chat", {"model": "base", "messages": ASK, "think": True}).status_code == 400


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"thinking": {"type": "sometimes"}}, "thinking.type"), ({"thinking": {"mood": 1}}, "thinking.mood"),
        ({"thinking": {"budget_tokens": -1}}, "thinking.budget_tokens"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"thinking": {"budget_tokens": 5}, "reasoning_effort": "low"}, "thinking"),
        ({"thinking_token_budget": 5, "reasoning_budget": 6}, "reasoning_budget"),
    ],
)  # fmt: skip
def test_the_field_is_named(thinks, extra, param):
    answer = thinks.ask("/v1/chat/completions", {"model": "base", "messages": ASK, **extra})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
