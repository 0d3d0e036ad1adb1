"""A byte-level BPE tokenizer of any size, made from nothing: every byte, then every short word in a fixed order."""

import json
from itertools import count, product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgewise.base import BadInput
from edgewise.text.pretokenizers import build, words_of

SPECIALS = ("<|startoftext|>", "<|endoftext|>", "<|pad|>")  # the last three ids: BOS, EOS, padding
SMALLEST = 256 + len(SPECIALS)
_LETTERS = "etaoinshrdlucmfwypvbgkjxqz"
_SPACE = "\u0120"  # a space in GPT-2's byte alphabet


def special_ids(vocab: int) -> dict[str, int]:
    return {name: vocab - len(SPECIALS) + i for i, name in enumerate(("bos_token_id", "eos_token_id", "pad_token_id"))}


def make_tokenizer(vocab: int, pre: str) -> Tokenizer:
    """`vocab` ids in all. A word is its longest known beginning, letter by letter: each merge adds one letter."""
    if vocab < SMALLEST:
        raise BadInput(f"A byte-level vocabulary needs at least {SMALLEST} ids, but vocab_size is {vocab}.")
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    room = vocab - SMALLEST
    for length in count(1):
        for first, *rest in product(_SPACE + _LETTERS, *[_LETTERS] * length):
            if len(merges) == room:
                break
            stem = first + "".join(rest[:-1])
            merges.append((stem, rest[-1]))
            tokens.append(stem + rest[-1])
        if len(merges) == room:
            break
    words = words_of(pre)
    ids = {text: i for i, text in enumerate([*tokens, *SPECIALS])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=words.ignore_merges))
    if words.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = build(words)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer


def write_tokenizer(folder: Path, vocab: int, pre: str, context: int) -> None:
    """tokenizer.json, tokenizer_config.json and generation_config.json."""
    make_tokenizer(vocab, pre).save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "model_max_length": context,
        **dict(zip(("bos_token", "eos_token", "pad_token"), SPECIALS, strict=True)),
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    (folder / "generation_config.json").write_text(json.dumps(special_ids(vocab), indent=1))
