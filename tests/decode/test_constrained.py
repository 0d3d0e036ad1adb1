"""Grammars: what may be chosen after what, ends, halves of characters, going back, and what cannot be fulfilled."""

import json

import numpy as np
import pytest

from edgewise.base import BadInput, SamplingParams, SeqId, StructuredOutputsParams
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.decode.grammars import Grammars
from edgewise.decode.rules import rules_for
from edgewise.testing.decode_contract import RuleContract

END = 256
PIECES = [bytes([value]) for value in range(256)] + [None, None, b'{"', b"yes", "é".encode(), "😀".encode()[:2]]
GRAMMARS = Grammars(lambda: PIECES, 270, {END})


def rule(**wanted: object) -> LogitsRule:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(**wanted))  # type: ignore[arg-type]
    (made,) = rules_for(params, {END}, GRAMMARS)
    return made


def allowed(made: LogitsRule, text: bytes | list[int]) -> list[int]:
    row = made.apply(SeqView(SeqId(0), [7, *text], 1, SamplingParams()), np.zeros(270, np.float32))
    return np.flatnonzero(np.isfinite(row)).tolist()


class TestConstrained(RuleContract):
    def make(self) -> LogitsRule:
        pieces = [bytes([97 + at]) for at in range(19)] + [None]
        params = SamplingParams(structured_outputs=StructuredOutputsParams(regex="[a-k]{2,4}"))
        (made,) = rules_for(params, {19}, Grammars(lambda: pieces, 20, {19}))
        return made


def test_the_end_only_where_the_grammar_may_end() -> None:
    made = rule(choice=["yes", "yes sir", "no"])
    assert allowed(made, b"") == [ord("n"), ord("y"), 259]
    assert allowed(made, b"ye") == [ord("s")]
    assert allowed(made, b"yes") == [ord(" "), END]
    assert allowed(made, [259]) == [ord(" "), END]
    assert allowed(made, b"no") == [END]


def test_characters_may_come_in_halves() -> None:
    made = rule(regex="[é😀]!")
    face = "😀".encode()
    assert allowed(made, b"") == [0xC3, 0xF0, 260, 261]
    assert allowed(made, face[:1]) == [face[1]]
    assert allowed(made, [261]) == [face[2]]
    assert allowed(made, [261, *face[2:]]) == [ord("!")]
    assert allowed(made, [260]) == [ord("!")]


def test_it_goes_back_to_where_texts_agree() -> None:
    made = rule(json={"type": "array", "items": {"enum": [12, 13, 24]}, "maxItems": 2})
    for text in (b"[12,1", b"[13", b"[12,", b"[2", b"[24]", b"", b"[12,13]"):
        assert allowed(made, text) == allowed(rule(json=made_schema()), text), text


def made_schema() -> str:
    return json.dumps({"type": "array", "items": {"enum": [12, 13, 24]}, "maxItems": 2})


def test_a_token_outside_the_grammar_is_said() -> None:
    with pytest.raises(BadInput, match="left the grammar"):
        allowed(rule(regex="a+"), b"ab")


def test_white_space_is_bounded() -> None:
    made = rule(json_object=True)
    assert ord(" ") in allowed(made, b"{")
    assert ord(" ") not in allowed(made, b"{ ")
    assert ord("\n") not in allowed(made, b"{\n")
    assert ord(" ") not in allowed(made, b"{\n" + 12 * b" ")


def test_grammars_in_both_notations() -> None:
    lark = rule(grammar='start: "a" rest\nrest: "b" | "c" rest')
    gbnf = rule(grammar='root ::= "a" rest\nrest ::= "b" | "c" rest')
    forced = rule(grammar='%llguidance {"no_forcing": false}\nstart: "a" rest\nrest: "b" | "c" rest')
    for text in (b"", b"a", b"ac", b"acb"):
        assert allowed(lark, text) == allowed(gbnf, text) == allowed(forced, text)
    assert allowed(rule(regex=r"a/b\/c" + "\n"), b"a/b/c") == [ord("\n")]


def test_equal_grammars_are_compiled_once() -> None:
    grammars = Grammars(lambda: PIECES, 270, {END})
    for _ in range(3):
        grammars.matcher(StructuredOutputsParams(json={"type": "integer"}))
    assert len(grammars._made) == 1


IMPOSSIBLE = [
    ({"json": False}, "false"), ({"json": "{"}, "JSON"), ({"json": "3"}, "object"),
    ({"json": {"type": "nope"}}, "nope"), ({"json": {"enum": []}}, "Unsatisfiable"),
    ({"json": {"type": "integer", "minimum": 5, "maximum": 2}}, "minimum"),
    ({"json": {"type": "string", "minLength": 3, "maxLength": 1}}, "minLength"),
    ({"json": {"allOf": [{"type": "string"}, {"type": "number"}]}}, "Unsatisfiable"),
    ({"json": {"type": "object", "properties": {"a": False}, "required": ["a"]}}, "required"),
    ({"json": {"$ref": "#/$defs/x"}}, "exist"), ({"json": {"$ref": "#"}}, "itself"),
    ({"json": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}}, "itself"),
    ({"json": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}, "itself"),
    ({"json": {"not": {"type": "string"}}}, "not"), ({"json": {"x-guidance": 3}}, "x-guidance"),
    ({"json": {"type": "string", "pattern": "("}}, "unclosed"), ({"regex": "("}, "unclosed"),
    ({"regex": r"[^\s\S]"}, "no text"), ({"regex": "(?=a)b"}, "look-around"), ({"grammar": "start: x"}, "unknown name"),
    ({"grammar": "root ::= x"}, "GBNF"), ({"grammar": "%llguidance 3\nstart: /a/"}, "JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "word"), IMPOSSIBLE, ids=str)
def test_what_cannot_be_fulfilled_is_refused(wanted: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word) as caught:
        rule(**wanted)
    assert str(caught.value).startswith(f"structured_outputs.{next(iter(wanted))}: ")
    assert "\n" not in str(caught.value)


def test_recursion_that_ends_is_taken() -> None:
    tree = {"$ref": "#/$defs/n", "$defs": {"n": {
        "type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
        "required": ["kids"], "additionalProperties": False}}}  # fmt: skip
    assert allowed(rule(json=tree), b'{"kids":[{"kids":[') != []
    maybe = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1}]}
    assert END in allowed(rule(json=maybe), b"[[null]]")


@pytest.mark.parametrize(
    "wanted",
    [{}, {"regex": "a", "choice": ["a"]}, {"regex": ""}, {"choice": []}, {"choice": "ab"}, {"choice": [""]},
     {"json": {"a": float("nan")}}, {"json": {"a": {1}}}, {"json": {}, "json_object": True}],
    ids=str,
)  # fmt: skip
def test_a_description_is_exactly_one_thing(wanted: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        StructuredOutputsParams(**wanted)  # type: ignore[arg-type]


def test_settings_that_speak_against_it_are_refused() -> None:
    wanted = StructuredOutputsParams(regex="a")
    for more in ({"ignore_eos": True}, {"min_tokens": 2}, {"structured_outputs": {"regex": "a"}}):
        with pytest.raises(BadInput, match=next(iter(more))):
            SamplingParams(**{"structured_outputs": wanted, **more})  # type: ignore[arg-type]


def test_a_vocabulary_without_an_end_is_refused() -> None:
    with pytest.raises(BadInput, match="ends a text"):
        Grammars(lambda: PIECES, 270, ()).matcher(StructuredOutputsParams(regex="a"))
