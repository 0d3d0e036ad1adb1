"""Patterns of a hostile tokenizer.json: refused before they run, however they are hidden."""

import json

import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.testing.bombs import PATTERNS, QUADRATIC
from edgewise.testing.vocabularies import byte_level, hf_header
from edgewise.text import load_tokenizer
from edgewise.text.pretokenizers import PRETOKENIZERS
from edgewise.text.regexes import _Shape, check_patterns, patterns_in

HARMLESS = (r"\p{L}+|\p{N}{1,2}|[^\s]", r"[a-z&&[^x]]+|.", r"(?i:abc)?d", r"\d{1,3}|\s+|\S", r"[\]a]+|[^\]a]+")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bombs_are_refused_by_their_shape(pattern):
    with pytest.raises((BadInput, Unsupported), match=r"tokenizer\.json"):
        check_patterns([pattern], "tokenizer.json")


@pytest.mark.parametrize("pattern", QUADRATIC)
def test_what_takes_quadratic_time_is_found_by_trying(pattern):
    assert _Shape(pattern).problem() is None
    with pytest.raises(Unsupported, match="too long"):
        check_patterns([pattern], "tokenizer.json")


def test_harmless_patterns_pass():
    check_patterns(list(HARMLESS), "tokenizer.json")


def test_known_patterns_pass_without_a_trial(monkeypatch):
    monkeypatch.setattr("edgewise.text.regexes._quick", lambda patterns: pytest.fail("tried"))
    check_patterns([pattern for words in PRETOKENIZERS.values() for pattern in words.patterns], "tokenizer.json")


def test_patterns_are_found_however_the_key_is_written():
    for key in ("Regex", "\\u0052egex", "R\\u0065gex", "\\u0052\\u0065\\u0067\\u0065\\u0078"):
        assert patterns_in(f'{{"pattern": {{"{key}" : "a\\\\s\\"b"}}}}') == ['a\\s"b']
    assert patterns_in('{"Regex": 3, "vocab": {"Regex": 5}}') == []


@pytest.mark.parametrize("key", ["Regex", "\\u0052egex"])
@pytest.mark.parametrize("place", ["pre_tokenizer", "normalizer", "decoder"])
def test_a_hostile_file_is_refused_wherever_the_bomb_is(tmp_path, key, place):
    pattern = f'{{"{key}": "(a+)+$"}}'
    part = {
        "pre_tokenizer": f'{{"type": "Split", "pattern": {pattern}, "behavior": "Isolated", "invert": false}}',
        "normalizer": f'{{"type": "Replace", "pattern": {pattern}, "content": ""}}',
        "decoder": f'{{"type": "Replace", "pattern": {pattern}, "content": ""}}',
    }[place]
    header = hf_header(byte_level(), tmp_path / "a")
    path = tmp_path / "a" / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state[place] = "HERE"
    path.write_text(json.dumps(state).replace('"HERE"', part), encoding="utf-8")
    with pytest.raises(Unsupported, match="run for ever"):
        load_tokenizer(header)


def test_a_megabyte_of_one_character_is_encoded(tmp_path):
    """Known patterns take linear time; DeepSeek's own \\s+$ is replaced by an equal one that does."""
    for pre in ("gpt-2", "llama-bpe", "deepseek-llm"):
        source = byte_level("llama3", pre)
        header = hf_header(source, tmp_path / pre)
        path = tmp_path / pre / "tokenizer.json"
        path.write_text(path.read_text(encoding="utf-8").replace(r"(?<!\\s)\\s+$", r"\\s+$"), encoding="utf-8")
        made = load_tokenizer(header)
        for char in "a ":
            text = char * 200_000 + "x"
            assert made.decode(made.encode(text)) == text
