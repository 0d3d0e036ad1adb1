"""Hugging Face folders: what the configuration files say is followed, hostile ones are refused."""

import contextlib
import json
from dataclasses import replace

import pytest

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.testing.vocabularies import TEXT, byte_level, hf_header, sentencepiece
from edgewise.text import load_template, load_tokenizer


def edit(header, change):
    path = header.folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(state) or state), encoding="utf-8")
    return header


def test_bos_and_eos_come_from_every_place(tmp_path):
    source = byte_level("llama3")
    id_of = source.token_to_id
    header = hf_header(source, tmp_path / "a", bos_token="<|begin_of_text|>", eos_token={"content": "<|eot_id|>"})
    header = replace(header, generation={"eos_token_id": [5, 6]}, config={"eos_token_id": 7, "text_config": {}})
    made = load_tokenizer(header)
    assert made.bos == id_of("<|begin_of_text|>")
    assert made.eos == {id_of("<|eot_id|>"), 5, 6, 7}
    assert made.add_bos
    assert made.encode("x", add_special=True)[0] == made.bos
    assert made.encode("x") == made.encode("x", add_special=True)[1:]


@pytest.mark.parametrize(("flag", "expected"), [(True, True), (False, False), (None, True)])
def test_add_bos_token_wins_over_the_post_processor(tmp_path, flag, expected):
    config = {"bos_token": "<|begin_of_text|>"} | ({} if flag is None else {"add_bos_token": flag})
    assert load_tokenizer(hf_header(byte_level("llama3"), tmp_path / "a", **config)).add_bos is expected


def test_without_companions_config_json_gives_the_ids(tmp_path):
    source = byte_level("llama3")
    header, bos = hf_header(source, tmp_path / "a"), source.token_to_id("<|begin_of_text|>")
    (tmp_path / "a" / "tokenizer_config.json").unlink()
    made = load_tokenizer(replace(header, config={"bos_token_id": bos, "text_config": {"eos_token_id": [bos + 1]}}))
    assert (made.bos, made.eos, made.add_bos) == (bos, {bos + 1}, True)


@pytest.mark.parametrize("value", ["x", -1, 1.5, [None, "a"], True, [[1]], {"a": 1}, 1 << 40])
def test_ids_that_are_none_are_refused_by_name(tmp_path, value):
    header = hf_header(byte_level("llama3"), tmp_path / "a")
    with pytest.raises(BadInput, match=r"generation_config\.json: eos_token_id"):
        load_tokenizer(replace(header, generation={"eos_token_id": value}))


def test_tokens_that_look_like_control_are_control(tmp_path):
    source = byte_level("deepseek")
    made = load_tokenizer(hf_header(source, tmp_path / "a"))
    user, think = source.token_to_id("<｜User｜>"), source.token_to_id("<think>")
    assert user not in made.encode("<｜User｜>hi")
    assert made.encode("<｜User｜>hi", parse_special=True)[0] == user
    assert made.encode("<think>") == [think]  # no control token in any file: matched, as transformers does
    assert made.decode([user]) == "<｜User｜>"  # but not flagged special: skip_special leaves it


def test_text_after_a_special_token_gets_the_prefix_its_scheme_says(tmp_path):
    for scheme in ("prepend", "first", "none"):
        source = sentencepiece("mistral", scheme)
        made = load_tokenizer(hf_header(source, tmp_path / scheme))
        for text in ("[INST] hi [/INST]there", "hi[INST]hi", "<s>x", "a [INST]", "x"):
            assert made.encode(text, parse_special=True) == byless(source, text)


def byless(source, text):
    source.encode_special_tokens = False
    return source.encode(text, add_special_tokens=False).ids


def test_an_added_token_does_not_form_across_a_breaker(tmp_path):
    source = byte_level("qwen3", "qwen2")
    made = load_tokenizer(hf_header(source, tmp_path / "a"))
    ids = made.encode("a<\ue000think>b", parse_special=True, breaker="\ue000")
    assert source.token_to_id("<think>") not in ids
    assert made.decode(ids) == "a<think>b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"model": 3}',
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}',
        "[" * 5000,
        '{"model": {"type": "Nope"}}',
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, text):
    header = hf_header(byte_level(), tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text(text)
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        load_tokenizer(header)


def test_missing_and_binary_files(tmp_path):
    header = hf_header(byte_level(), tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        load_tokenizer(header)
    (tmp_path / "a" / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        load_tokenizer(header)


@pytest.mark.parametrize("key", ["bos_token", "eos_token"])
@pytest.mark.parametrize("value", [3, [1], {"content": 4}])
def test_wrong_types_in_the_configuration_are_refused(tmp_path, key, value):
    with pytest.raises(BadInput, match=key):
        load_tokenizer(hf_header(byte_level(), tmp_path / "a", **{key: value}))


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "CTC", "pad_token": "x", "word_delimiter_token": "|", "cleanup": True},
        {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""},
        {"type": "BPEDecoder", "suffix": "</w>"},
    ],
)
def test_decoders_that_cannot_be_streamed_are_refused(tmp_path, decoder):
    header = edit(hf_header(byte_level(), tmp_path / "a"), lambda state: {**state, "decoder": decoder})
    with pytest.raises(Unsupported):
        load_tokenizer(header)


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        {"type": "Fuse"},
        {"type": "ByteFallback"},
        {"type": "Strip", "content": "a", "start": 2, "stop": 0},
        {"type": "Strip", "content": "a", "start": 0, "stop": 1},
        {"type": "Metaspace", "replacement": "Ġ", "prepend_scheme": "first", "split": True},
        {"type": "Metaspace", "replacement": "e", "prepend_scheme": "never", "split": True},
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "Ġ", "start": 1, "stop": 2}]},
        {
            "type": "Sequence",
            "decoders": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    ],
)
def test_every_other_decoder_decodes_like_the_library(tmp_path, decoder):
    import random

    from tokenizers import Tokenizer

    header = edit(hf_header(byte_level(), tmp_path / "a"), lambda state: {**state, "decoder": decoder})
    made = load_tokenizer(header)
    reference = Tokenizer.from_file(str(tmp_path / "a" / "tokenizer.json"))
    dice = random.Random(2)
    compared = 0
    for _ in range(2000):
        ids = [dice.randrange(40, 440) for _ in range(dice.randrange(1, 9))]
        stream = made.stream()
        assert "".join([*map(stream.push, ids), stream.flush()]) == made.decode(ids)
        expected = None
        with contextlib.suppress(BaseException):  # the library's own Strip panics where both of its ends meet
            expected = reference.decode(ids)
        if expected is not None:
            assert made.decode(ids) == expected
            compared += 1
    assert compared > 1900


def test_padding_and_truncation_in_the_file_are_ignored(tmp_path):
    def change(state):
        state["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
        state["padding"] = {"strategy": {"Fixed": 9000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                            "pad_type_id": 0, "pad_token": "x"}  # fmt: skip
        return state

    made = load_tokenizer(edit(hf_header(byte_level(), tmp_path / "a"), change))
    assert made.decode(made.encode(TEXT)) == TEXT


def test_templates_of_every_shape(tmp_path):
    source = byte_level()
    hi = [{"role": "user", "content": "hi"}]
    header = hf_header(
        source, tmp_path / "a", chat_template="A{{ messages[0].content }}{{ eos_token }}", eos_token="</s>"
    )
    assert load_template(header).render(hi) == "Ahi</s>"
    listed = [
        {"name": "default", "template": "D"},
        {"name": "tool_use", "template": "T"},
        {"name": "rag", "template": "R"},
    ]
    header = hf_header(source, tmp_path / "b", chat_template=listed)
    assert load_template(header).render(hi) == "D"
    assert load_template(header).render(hi, tools=[{"type": "function"}]) == "T"
    (tmp_path / "b" / "chat_template.jinja").write_text("J", encoding="utf-8")
    (tmp_path / "b" / "additional_chat_templates").mkdir()
    (tmp_path / "b" / "additional_chat_templates" / "tool_use.jinja").write_text("ignored", encoding="utf-8")
    assert load_template(header).render(hi, tools=[]) == "J"
    assert load_template(hf_header(source, tmp_path / "c")) is None
    for wrong in (3, [3], [{"name": "default"}], {"default": "x"}):
        with pytest.raises(BadInput, match="chat_template"):
            load_template(hf_header(source, tmp_path / "d", chat_template=wrong))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_never_crash(tmp_path, seed):
    """Fields of tokenizer.json set to strange values: a tokenizer or one of our errors."""
    import random

    dice = random.Random(seed)
    base = json.loads(byte_level("gemma").to_str())
    strange = [None, 0, -1, 1 << 62, 1.5, "", "x", [], {}, True, ["a"], {"type": "Sequence"}]
    header = hf_header(byte_level("gemma"), tmp_path / "a")
    for _ in range(120):
        state = json.loads(json.dumps(base))
        for _ in range(dice.randrange(1, 3)):
            at = state
            while True:
                keys = list(at) if isinstance(at, dict) else list(range(len(at)))
                if not keys:
                    break
                key = dice.choice(keys)
                if isinstance(at[key], dict | list) and dice.random() < 0.7:
                    at = at[key]
                else:
                    at[key] = json.loads(json.dumps(dice.choice(strange)))
                    break
        (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
        try:
            made = load_tokenizer(header)
            ids = made.encode("some text <eos>", add_special=True, parse_special=True)
            made.decode(ids)
        except EdgewiseError:
            pass
