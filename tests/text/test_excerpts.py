"""A tokenizer cut down to what one text can use gives the ids of the whole one, on every kind and any text."""

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgewise.base import BadInput
from edgewise.kernels.parsing import Strings
from edgewise.kernels.pieces import Pieces, pairs_within
from edgewise.testing.vocabularies import TEXT, byte_level, gguf_header, sentencepiece
from edgewise.text import load_template, load_tokenizer
from edgewise.text.excerpts import FEW, SHORT_CHARS


def strings(values):
    """As the parser of GGUF files gives them."""
    stored = [value if isinstance(value, bytes) else value.encode("utf-8") for value in values]
    return Strings(b"".join(stored), np.cumsum([len(value) for value in stored]).astype(np.uint32))


def stored(header):
    config = dict(header.config)
    for key in ("tokens", "merges"):
        name = f"tokenizer.ggml.{key}"
        if name in config:
            config[name] = strings(config[name])
    return replace(header, config=config)


HEADERS = {
    "llama3": gguf_header(byte_level("llama3", "llama-bpe"), "gpt2", "llama-bpe"),
    "qwen3 composes": gguf_header(byte_level("qwen3", "qwen2"), "gpt2", "qwen2"),
    "gemma bytes": gguf_header(byte_level("gemma", "gpt-2"), "gpt2", "gpt-2"),
    "deepseek": gguf_header(byte_level("deepseek", "deepseek-llm"), "gpt2", "deepseek-llm"),
    "falcon": gguf_header(byte_level("mistral", "falcon"), "gpt2", "falcon"),
    "mistral": gguf_header(sentencepiece("mistral"), "llama"),
    "mistral, no prefix": gguf_header(sentencepiece("mistral", "none"), "llama", add_space_prefix=False),
    "mistral, user tokens": gguf_header(sentencepiece("mistral"), "llama"),
}
last = HEADERS["mistral, user tokens"].config["tokenizer.ggml.token_type"]
for user in range(300, 330):  # ordinary words become added tokens, which cut the text
    last[user] = 4
PAIRS = {name: (load_tokenizer(header), load_tokenizer(stored(header))) for name, header in HEADERS.items()}
SPECIAL = ["<|eot_id|>", "<think>", "<|im_start|>", "<s>", "</s>", "<unk>", "<0x41>", "[INST]", "\n\n", "<table>", "▁"]
MARKS = ["e\u0301", "\u0323\u0301", "\u0301\u0323", "q\u0307\u0323", "\u1e9b\u0323", "한글", "\u0300"]
WORDS = [*TEXT.split(" "), *SPECIAL, *MARKS, " ", "  "]
TEXTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=12).map("".join)


@pytest.mark.parametrize("name", sorted(PAIRS))
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, special=st.booleans(), breaker=st.sampled_from(["", "\x00"]))
@example(text="", special=False, breaker="")
@example(text=TEXT, special=True, breaker="")
@example(text="<think>\u0338", special=False, breaker="")  # > and U+0338 compose, but not out of an added token
def test_ids_are_those_of_the_whole(name, text, special, breaker):
    whole, lean = PAIRS[name]
    lean._main._left = lean._bare._left = FEW  # as if nothing had been encoded yet
    lean._main._whole = lean._bare._whole = None
    if breaker:
        text = whole.break_up(text, breaker)
        assert lean.break_up(text, breaker) == whole.break_up(text, breaker)
    asked = {"parse_special": special, "add_special": True, "breaker": breaker}
    assert lean.encode(text, **asked) == whole.encode(text, **asked)
    ids = whole.encode(text, **asked)
    assert lean.decode(ids) == whole.decode(ids)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_everything_else_is_the_same_too(name):
    whole, lean = PAIRS[name]
    for field in ("vocab", "bos", "eos", "special", "add_bos", "decoder"):
        assert getattr(lean, field) == getattr(whole, field), field
    assert [lean.piece(i) for i in range(lean.vocab)] == [whole.piece(i) for i in range(whole.vocab)]
    assert list(lean.control.tokens.values()) == list(whole.control.tokens.values())
    assert list(lean.matched.tokens.values()) == list(whole.matched.tokens.values())
    assert lean.backend.to_str() == whole.backend.to_str()
    assert load_template(stored(HEADERS[name])) == load_template(HEADERS[name])


def test_the_whole_is_built_for_long_and_for_many_texts():
    header = stored(HEADERS["llama3"])
    lean = load_tokenizer(header)
    assert lean._main._whole is None
    lean.encode("a" * (SHORT_CHARS + 1))
    assert lean._main._whole is not None
    lean = load_tokenizer(header)
    for _ in range(FEW):
        lean.encode("Once upon a time")
        assert lean._main._whole is None
    lean.encode("Once upon a time")
    assert lean._main._whole is not None


def test_lone_surrogates_are_refused_by_an_excerpt():
    for name in ("llama3", "qwen3 composes", "mistral"):
        with pytest.raises(BadInput, match="lone surrogates"):
            load_tokenizer(stored(HEADERS[name])).encode("a\udc80b")


@pytest.mark.parametrize("line", ["ab", "a ", " ", "", "Ġ t ", "zzz a", "a zzz", "c Ġ"])
def test_a_bad_merge_is_refused_before_anything_is_encoded(line):
    header = HEADERS["llama3"]
    merges = [*header.config["tokenizer.ggml.merges"], line]
    changed = replace(header, config={**header.config, "tokenizer.ggml.merges": merges})
    with pytest.raises(BadInput, match=r"merges\[\d+\] is ") as plain:
        load_tokenizer(changed)
    with pytest.raises(BadInput) as native:
        load_tokenizer(stored(changed))
    assert str(native.value) == str(plain.value)


def test_strings_that_are_not_utf8_take_the_long_way():
    header = HEADERS["llama3"]
    tokens = [text.encode() for text in header.config["tokenizer.ggml.tokens"]]
    tokens[-1] = b"\xff\xfe"
    config = {**stored(header).config, "tokenizer.ggml.tokens": strings(tokens)}
    made = load_tokenizer(replace(header, config=config))
    assert made.piece(len(tokens) - 1) == "\ufffd\ufffd"
    assert made.encode("Once upon") == PAIRS["llama3"][0].encode("Once upon")


@given(st.lists(st.text(max_size=4), max_size=30), st.text(max_size=8))
def test_pieces_are_a_dict_of_the_last_ids(texts, other):
    pieces = Pieces(strings([text.encode("utf-8", "replace") for text in texts]))
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    want = {text: i for i, text in enumerate(texts) if text}
    assert dict(pieces) == want
    for text in (*texts, other, other + "x"):
        assert (text in pieces) == (text in want)
        assert pieces.get(text) == want.get(text)


@given(st.lists(st.binary(max_size=5), max_size=30), st.binary(max_size=60))
def test_within_finds_every_substring(texts, text):
    pieces = Pieces(strings(texts))
    assert pieces.within(text).tolist() == [i for i, piece in enumerate(texts) if piece and piece in text]
    lines = [a + b" " + b for a, b in zip(texts, reversed(texts), strict=True) if a and b and b" " not in a[1:]]
    want = [i for i, line in enumerate(lines) if (cut := line.find(b" ", 1)) and line[:cut] + line[cut + 1 :] in text]
    assert pairs_within(strings(lines), text).tolist() == want


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=8))
def test_utf8_is_what_python_says(texts):
    def fine(text):
        try:
            return bool(text.decode("utf-8")) or True
        except UnicodeDecodeError:
            return False

    assert strings(texts).are_utf8() == all(map(fine, texts))


def test_text_is_utf8_at_its_limits():
    for point in (0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF):
        assert strings([chr(point)]).are_utf8(), unicodedata.name(chr(point), hex(point))
    limits = (b"\xc0\x80", b"\xed\xa0\x80", b"\xe0\x9f\xbf", b"\xf4\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\x80", b"\xc3")
    for broken in limits:
        assert not strings([broken]).are_utf8()
