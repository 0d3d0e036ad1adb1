"""The vocabulary: byte-level BPE trained with `tokenizers`, one for the whole family.

Byte-level means that every text has a spelling and none an unknown token. Words are cut by the Qwen2 pattern, which
GGUF files name `qwen2`: one digit a word, punctuation may take the newlines behind it, spaces stay in front of words.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PRE_TOKENIZER = "qwen2"  # the pattern's name in GGUF
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"
BOS, EOS, PAD, END = "<|bos|>", "<|eos|>", "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (
    BOS, EOS, PAD, "<|system|>", "<|user|>", "<|assistant|>", END, "<|think|>", "<|/think|>", "<|tools|>",
    "<|tool|>", "<|/tool|>", "<|result|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    *(f"<|reserved_{n}|>" for n in range(16)),
)  # fmt: skip


def _tokenizer(model: models.BPE) -> Tokenizer:
    """The family's way of cutting and joining around a vocabulary."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _specials() -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of exactly `vocab` ids, special ones first. The same texts give the same tokenizer."""
    tokenizer = _tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=_specials(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int, *, chats: bool = True) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, for what chats, the template, as transformers expects them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_bos_token": False,  # windows begin anywhere in training, so a text needs no mark in front
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    ids = {mark: tokenizer.token_to_id(mark) for mark in (BOS, EOS, PAD, END)}
    ends = [ids[EOS], ids[END]] if chats else ids[EOS]
    generation = {"bos_token_id": ids[BOS], "eos_token_id": ends, "pad_token_id": ids[PAD]}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    if chats:
        (folder / CHAT_TEMPLATE.name).write_text(CHAT_TEMPLATE.read_text())


def id_of(tokenizer: Tokenizer, mark: str) -> int:
    """The id of a special token. Raises KeyError where the vocabulary lacks it: then it is not the family's."""
    found = tokenizer.token_to_id(mark)
    if found is None:
        raise KeyError(mark)
    return int(found)


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
