"""The tokenizer: every text survives, the ids are the same each time, special tokens keep their places."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.train.corpus import stdlib_folder, top_level_pieces
from edgewise.train.tokenizer import SPECIAL_TOKENS, load_tokenizer, save_tokenizer, train_tokenizer

TEXTS = [file.read_text() for file in sorted((stdlib_folder() / "json").glob("*.py"))]
TOKENIZER = train_tokenizer(TEXTS, 500)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_round_trip_of_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert TOKENIZER.get_vocab_size() == 500
    assert train_tokenizer(TEXTS, 500).to_str() == TOKENIZER.to_str()


def test_special_tokens_come_first_and_are_one_id() -> None:
    assert [TOKENIZER.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert len(SPECIAL_TOKENS) == 32
    assert TOKENIZER.encode("<|eos|>").ids == [1]


def test_piecewise_equals_whole() -> None:
    for text in TEXTS:
        pieces = [TOKENIZER.encode(piece).ids for piece in top_level_pieces(text)]
        assert [token for piece in pieces for token in piece] == TOKENIZER.encode(text).ids


def test_saved_and_loaded(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path, 64)
    assert (
        load_tokenizer(tmp_path).encode("def f(x):\n    return x\n").ids
        == TOKENIZER.encode("def f(x):\n    return x\n").ids
    )


@pytest.mark.oracle
def test_transformers_reads_it_the_same_way(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(TOKENIZER, tmp_path, 64)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "class A:\n    x = 12345  # été\n\n\n"
    assert theirs(text)["input_ids"] == TOKENIZER.encode(text).ids
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
