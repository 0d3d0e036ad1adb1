"""Small tokenizers of every kind, trained on the spot: for tests, never for use."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgewise.text.pretokenizers import build, words_of
from edgewise.weights.api import Header

TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with 3 balls.\n"
    "Es war einmal ein Mädchen; naïve cafés, señor! Привет, мир. 你好世界 こん 🦙🚀\u200d\U0001f469\n\n"
    "def f(x):\n    return [x for x in range(10) if x % 2 == 0]  # it's we'll DON'T\n\t\ttabs\r\n   spaces   "
)
# The control tokens of five families, as their files flag them: (text, special).
FAMILIES: dict[str, tuple[tuple[str, bool], ...]] = {
    "llama3": tuple(
        (text, True)
        for text in (
            "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
            "<|eom_id|>", "<|python_tag|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>",
        )
    ),
    "qwen3": (
        *((f"<|{name}|>", True) for name in ("endoftext", "im_start", "im_end", "object_ref_start", "vision_pad")),
        *((f"<|{name}|>", False) for name in ("fim_prefix", "fim_middle", "fim_suffix", "repo_name", "file_sep")),
        *((text, False) for text in ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")),
        *((text, False) for text in ("<think>", "</think>")),
    ),
    "gemma": (
        ("<pad>", True), ("<eos>", True), ("<bos>", True), ("<unk>", True), ("<start_of_turn>", True),
        ("<end_of_turn>", True), ("<start_of_image>", True), ("<table>", False), ("\n\n", False),
    ),
    "mistral": tuple(
        (text, True)
        for text in ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[TOOL_RESULTS]")
    ),
    "deepseek": (
        ("<｜begin▁of▁sentence｜>", True), ("<｜end▁of▁sentence｜>", True), ("<｜User｜>", False),
        ("<｜Assistant｜>", False), ("<｜tool▁calls▁begin｜>", False), ("<think>", False), ("</think>", False),
    ),
}  # fmt: skip


def byte_level(family: str = "llama3", pre: str = "gpt-2", size: int = 480) -> tokenizers.Tokenizer:
    """GPT-2's kind, with a family's control tokens after the vocabulary; its post-processor adds the first as BOS."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=words_of(pre).ignore_merges))
    made.pre_tokenizer = build(words_of(pre))
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    _add(made, FAMILIES[family])
    first = FAMILIES[family][0][0]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, made.token_to_id(first))]
    )
    return made


def sentencepiece(family: str = "mistral", scheme: str = "prepend", size: int = 560) -> tokenizers.Tokenizer:
    """SentencePiece's kind with byte fallback. scheme: "prepend" (Llama 2), "first" (Mistral), "none" (Gemma)."""
    special = [text for text, _ in FAMILIES[family]]
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    fixed = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size + len(fixed), special_tokens=fixed)
    made.train_from_iterator([re.sub("[^\x20-\x7e]", "", TEXT)] * 3, trainer)
    # The trainer flags the byte tokens as special; a real file does not list them at all.
    state = json.loads(made.to_str())
    flags = dict(FAMILIES[family])
    state["added_tokens"] = [
        {**token, "special": flags[token["content"]]} for token in state["added_tokens"] if token["content"] in flags
    ]
    made = tokenizers.Tokenizer.from_str(json.dumps(state))
    made.pre_tokenizer = None
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if scheme == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "first":
        made.normalizer = None
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    if scheme != "none":
        steps.append(decoders.Strip(" ", 1, 0))
    made.decoder = decoders.Sequence(steps)
    return made


def _add(made: tokenizers.Tokenizer, tokens: Sequence[tuple[str, bool]]) -> None:
    for text, special in tokens:
        token = tokenizers.AddedToken(text, special=special, normalized=False)
        (made.add_special_tokens if special else made.add_tokens)([token])


def hf_header(made: tokenizers.Tokenizer, folder: Path, **config: Any) -> Header:
    """Writes the tokenizer as a Hugging Face folder; config goes into tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Header("hf", "llama", {}, (), folder, {}, folder.name)


def gguf_header(made: tokenizers.Tokenizer, kind: str, pre: str = "gpt-2", **keys: Any) -> Header:
    """The metadata a GGUF file of this tokenizer would carry; keys (without tokenizer.ggml.) add or replace."""
    state = json.loads(made.to_str())
    vocab: Mapping[str, int] = state["model"]["vocab"]
    added = {token["id"]: token for token in state["added_tokens"]}
    tokens = [""] * (max([*vocab.values(), *added]) + 1)
    for text, token in vocab.items():
        tokens[token] = text
    for token, entry in added.items():
        tokens[token] = entry["content"]
    types = [6 if kind == "llama" and re.fullmatch("<0x[0-9A-F]{2}>", text) else 1 for text in tokens]
    for token, entry in added.items():
        types[token] = 3 if entry["special"] else 4
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in state["model"]["merges"]]
    table: dict[str, Any] = {"model": kind, "tokens": tokens, "token_type": types}
    if kind == "gpt2":
        table |= {"pre": pre, "merges": merges}
    else:
        rank = {pair.replace(" ", ""): -float(index) for index, pair in reversed(list(enumerate(merges)))}
        table["scores"] = [rank.get(text, -1e6) for text in tokens]
        table |= {"bos_token_id": tokens.index("<s>"), "eos_token_id": tokens.index("</s>")}
    table |= keys
    config = {f"tokenizer.ggml.{key}": value for key, value in table.items() if value is not None}
    return Header("gguf", "llama", config, (), Path(), {}, "test.gguf")
