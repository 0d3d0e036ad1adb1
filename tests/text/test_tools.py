"""How families call tools: what their grammar allows, and that text cut anywhere is read back the same."""

import json
import random

import pytest

from edgewise.base import BadInput, StructuredOutputsParams, Unsupported
from edgewise.decode.grammars import HEAD, Grammars
from edgewise.text.tools import TOOL_FORMATS, Part, Tool, tool_format

END, TAG = 256, 257
TOOLS = [
    Tool("add", '%json {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'),
    Tool("say", '%json {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": false}'),
]
ARGUMENTS = '{"text": "a \\"}]{ </tool_call> é\\\\"}'
FORMATS = list(TOOL_FORMATS)


def call(style: str, name: str = "say", arguments: str = ARGUMENTS) -> str:
    if style == "llama3":
        return f'{{"name": "{name}", "parameters": {arguments}}}'
    inner = f'{{"name": "{name}", "arguments": {arguments}}}'
    return inner if style == "mistral" else f"<tool_call>\n{inner}\n</tool_call>"


def answer(style: str, *calls: str) -> str:
    if style == "mistral":
        return f"[TOOL_CALLS][{', '.join(calls)}]"
    return "\n".join(calls)


def spelling(marker: str) -> str:
    return f"<[{TAG}]>" if marker == "[TOOL_CALLS]" else json.dumps(marker)


def takes(style: str, text: str, **options: object) -> tuple[bool, bool]:
    """Whether the grammar takes the whole text, and whether it may end there."""
    settings = {"forced": False, "most": 2, **options}
    lark = TOOL_FORMATS.build(style).grammar(TOOLS, spelling, **settings)
    grammars = Grammars(lambda: [*(bytes([i]) for i in range(256)), None, None], 258, {END})
    matcher = grammars.matcher(StructuredOutputsParams(grammar=HEAD + lark))
    ids: list[int] = []
    for at, part in enumerate(text.split("[TOOL_CALLS]")):
        ids += [TAG] * (at > 0) + list(part.encode())
    return matcher.try_consume_tokens(ids) == len(ids), matcher.is_accepting()


@pytest.mark.parametrize("style", FORMATS)
def test_what_the_grammar_takes(style: str) -> None:
    one, other = call(style), call(style, "add", '{"a":7}')
    for forced in (True, False):
        assert takes(style, answer(style, one), forced=forced) == (True, True)
        assert takes(style, answer(style, other)[:-1], forced=forced)[0]
        wrong = answer(style, call(style, "sub", "{}"))
        assert not takes(style, wrong, forced=forced)[0]
        assert not takes(style, answer(style, call(style, "add", '{"a":"x"}')), forced=forced)[0]
    if style != "llama3":
        assert takes(style, answer(style, one, other)) == (True, True)
        assert not takes(style, answer(style, one, one, one))[0]
        assert not takes(style, answer(style, one, one), most=1)[0]
        assert takes(style, "Let me see.\n" + answer(style, one)) == (True, True)
    assert takes(style, "No tool is needed: <tool, {x}.") == (True, True)
    assert not takes(style, "No tool.", forced=True)[0]
    if style == "llama3":
        with pytest.raises(BadInput, match="exclude"):
            takes(style, "", content="/a/")
        return
    assert takes(style, '{"b": 1}', content='%json {"type": "object"}') == (True, True)
    assert takes(style, answer(style, one), content='%json {"type": "object"}') == (True, True)
    assert not takes(style, "words", content='%json {"type": "object"}')[0]


@pytest.mark.parametrize("style", FORMATS)
def test_text_cut_anywhere_is_read_the_same(style: str) -> None:
    lead = "" if style == "llama3" else "Let me see: <tool is [TOOL\n"
    calls = [call(style)] if style == "llama3" else [call(style), call(style, "add", '{"a":{"b":[1,2]}}')]
    text = lead + answer(style, *calls)
    want_calls = [("say", ARGUMENTS), ("add", '{"a":{"b":[1,2]}}')][: len(calls)]
    dice = random.Random(0)
    for _ in range(200):
        cuts = sorted(dice.choices(range(len(text) + 1), k=dice.randrange(9)))
        parser = TOOL_FORMATS.build(style).parser()
        parts: list[Part] = []
        for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
            parts += parser.push(text[a:b])
        parts += parser.flush()
        assert "".join(part.text for part in parts) == lead
        for at, (name, arguments) in enumerate(want_calls):
            mine = [part for part in parts if part.call == at]
            assert mine[0].name == name
            assert not any(part.name for part in mine[1:])
            assert "".join(part.arguments for part in mine) == arguments
        assert json.loads(want_calls[0][1])


@pytest.mark.parametrize("style", FORMATS)
def test_an_answer_without_calls_is_text(style: str) -> None:
    for text in ("Hello.", "a < b, {x} and [TOOL", '{"na', '{"names": 1}', "<tool_cal"):
        parser = TOOL_FORMATS.build(style).parser()
        parts = [part for char in text for part in parser.push(char)] + parser.flush()
        assert "".join(part.text for part in parts) == text
        assert all(part.call < 0 for part in parts)


@pytest.mark.parametrize("style", FORMATS)
def test_a_call_that_was_cut_is_told_as_far_as_it_came(style: str) -> None:
    text = answer(style, call(style))
    at = text.index(" é")
    parser = TOOL_FORMATS.build(style).parser()
    parts = parser.push(text[:at]) + parser.flush()
    assert "".join(part.arguments for part in parts) == ARGUMENTS[: ARGUMENTS.index(" é")]
    parser = TOOL_FORMATS.build(style).parser()
    assert parser.push(text[: text.index("say") + 1]) + parser.flush() == []


def test_templates_are_known_by_their_marks() -> None:
    for template, name in (
        ("{% if tools %}<tool_call>{% endif %}", "HermesFormat"), ("{{ tools }}<|python_tag|>", "Llama3Format"),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", "MistralFormat"), ("{{ messages }}", "NoFormat"),
    ):  # fmt: skip
        assert type(tool_format(template)).__name__ == name
    for template in ("{{ tools }}", "{{ tools }}<tool_call><function=", "{{ tools }}[TOOL_CALLS][ARGS]"):
        with pytest.raises(Unsupported, match="hermes"):
            tool_format(template)


def test_templates_without_tools_get_plain_messages() -> None:
    made = TOOL_FORMATS.build("none").messages(
        [{"role": "system", "content": "Be brief."},
         {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
         {"role": "tool", "content": "2", "tool_call_id": "x"}],
        [{"type": "function", "function": {"name": "add"}}],
    )  # fmt: skip
    assert made[0]["content"].startswith("Be brief.\n\n")
    assert '{"name": "add"}' in made[0]["content"]
    called = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert made[1] == {"role": "assistant", "content": called}
    assert made[2] == {"role": "user", "content": "<tool_response>\n2\n</tool_response>"}


def test_ids_are_as_long_as_templates_want_them() -> None:
    assert len(TOOL_FORMATS.build("mistral").call_id()) == 9
    assert TOOL_FORMATS.build("hermes").call_id() != TOOL_FORMATS.build("hermes").call_id()
