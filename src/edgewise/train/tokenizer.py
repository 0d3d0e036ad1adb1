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
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
# Only the first two are trained now; the others keep their ids for the family's later members.
SPECIAL_TOKENS = (
   BOS, EOS, PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|think|>", "<|/think|>", "<|tools|>",
    "<|tool|>", "<|/tool|>", "<|result|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    *(f"<|reserved_{n}|>" for n in range(16)),
)  # fmt: skip


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of exactly `vocab` ids, special ones first. The same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json as transformers expects them."""
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


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
