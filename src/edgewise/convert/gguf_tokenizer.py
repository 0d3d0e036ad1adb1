"""The tokenizer.ggml.* keys of a GGUF file, from a Hugging Face tokenizer. The reading direction is edgewise.text.

Two kinds exist in GGUF that we write: `gpt2` (byte-level BPE; how words are cut is a name, found by trying the known
ones on a probe) and `llama` (SentencePiece BPE with byte fallback; the order of merges becomes scores).
"""

import json
import re
from typing import Any

import numpy as np
import tokenizers

from edgewise.base import BadInput, Unsupported
from edgewise.text import load_tokenizer
from edgewise.text.gguf import BYTE, CONTROL, NORMAL, PREFIX, UNKNOWN, UNUSED, USER
from edgewise.text.hf import chat_templates, special_strings, tokenizer_config
from edgewise.text.pretokenizers import PRETOKENIZERS, Words, build
from edgewise.weights.api import Header

# Names every llama.cpp of the last years knows come first; names that cut alike are never told apart.
_PREFERRED = (
    "llama-bpe", "gpt-2", "qwen2", "olmo", "smollm", "command-r", "starcoder", "deepseek-llm", "deepseek-coder",
    "deepseek-v3", "falcon", "tekken", "gpt-4o",
)  # fmt: skip
_PROBE = (
    "Hello world! It's we'RE I'Ve they'll 1 12 123 1234567 3.14  two   spaces\n\n new\r\nline \n \t tab\n"
    "naïve café e\u0301 Straße Ωmega слово 单词 三千 こんにちは カタカナ 한국어 مرحبا ไทย हिन्दी 🦙🦙 👩‍💻 "
    "x==y&&z|| $100 100€ (a.b) [c_d] {e-f} <g> `h` ~i^ “quoted” foo.bar@baz.com CamelCaseHTTPServer ABCdef /path//x\n"
    "²³ ½ Ⅷ ٣٤٥ _under_ ' ' 's trailing  "
)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = np.float32(-1e6)  # the score of a piece that no merge makes


def gguf_tokenizer(header: Header, vocab: int) -> dict[str, Any]:
    """The keys for a model with `vocab` rows in its embedding. Raises Unsupported for kinds GGUF or we cannot say."""
    tokenizer: Any = load_tokenizer(header)
    backend: tokenizers.Tokenizer = tokenizer.backend
    if tokenizer.vocab > vocab:
        most = tokenizer.vocab - 1
        raise BadInput(f"{header.folder}: tokenizer.json has ids up to {most} but the embedding only {vocab} rows.")
    state = json.loads(backend.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise Unsupported(f"{header.folder}: only BPE tokenizers go into GGUF files; this one is {model['type']}.")
    names = special_strings(tokenizer_config(header))
    ids: dict[str, int | None] = {"bos": tokenizer.bos, "eos": _main_end(tokenizer.eos, backend, names)}
    unknown = names.get("unk_token") or model.get("unk_token")
    ids["unknown"] = backend.token_to_id(unknown) if unknown else None
    ids["padding"] = backend.token_to_id(names["pad_token"]) if "pad_token" in names else None
    for kind, other in zip(("eot", "eom"), sorted(tokenizer.eos - {ids["eos"]}), strict=False):
        ids[kind] = other
    pieces = [backend.id_to_token(i) for i in range(vocab)]
    control = {token.id for token in tokenizer.control.tokens.values()}
    user = {token.id for token in tokenizer.matched.tokens.values()}
    sentencepiece = bool(model.get("byte_fallback"))
    types = [_type(i, piece, ids, control, user, sentencepiece) for i, piece in enumerate(pieces)]
    found: dict[str, Any] = {"model": "llama" if sentencepiece else "gpt2"}
    if not sentencepiece:
        found["pre"] = pre_name(backend, bool(model.get("ignore_merges")))
    else:
        found["pre"] = "default"
    found["tokens"] = [f"[PAD{i}]" if piece is None else piece for i, piece in enumerate(pieces)]
    merges = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    if sentencepiece:
        found["scores"] = _scores(pieces, merges)
    found["token_type"] = np.array(types, np.int32)
    if not sentencepiece:
        found["merges"] = [f"{left} {right}" for left, right in merges]
    found |= {f"{kind}_token_id": token for kind, token in ids.items() if token is not None}
    found["add_bos_token"] = bool(tokenizer.add_bos)
    if sentencepiece:
        found["add_space_prefix"] = backend.encode("a", add_special_tokens=False).tokens[0].startswith("\u2581")
    return {PREFIX + key: value for key, value in found.items()} | _templates(header)


def _main_end(ends: frozenset[int], backend: tokenizers.Tokenizer, names: dict[str, str]) -> int | None:
    named = backend.token_to_id(names["eos_token"]) if "eos_token" in names else None
    return named if named is not None else min(ends, default=None)


def _type(
    token: int, piece: str | None, ids: dict[str, int | None], control: set[int], user: set[int], sentencepiece: bool
) -> int:
    if piece is None:
        return UNUSED
    if sentencepiece and token == ids["unknown"]:
        return UNKNOWN
    if token in control:
        return CONTROL
    if sentencepiece and _BYTE_TOKEN.fullmatch(piece):
        return BYTE
    return USER if token in user else NORMAL


def _scores(pieces: list[str | None], merges: list[list[str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Minus the rank of the first merge that makes a piece: SentencePiece joins the pair of best score first."""
    rank: dict[str, int] = {}
    for index, (left, right) in enumerate(merges):
        rank.setdefault(left + right, index)
    scores = np.zeros(len(pieces), np.float32)
    for i, piece in enumerate(pieces):
        if piece is not None and len(piece) > 1 and not _BYTE_TOKEN.fullmatch(piece):
            scores[i] = -rank[piece] - 1 if piece in rank else _NEVER
    return scores


def pre_name(backend: tokenizers.Tokenizer, ignore_merges: bool) -> str:
    """The tokenizer.ggml.pre whose words are cut as this tokenizer cuts them. Raises Unsupported when there is none."""
    if backend.pre_tokenizer is None:
        raise Unsupported("This tokenizer does not cut words before merging; GGUF has no name for that.")
    wanted = _words(backend.pre_tokenizer)
    composes = backend.normalizer is not None and backend.normalizer.normalize_str("e\u0301") == "\u00e9"
    best: tuple[int, str] | None = None
    cut: dict[Words, list[str]] = {}
    for name in dict.fromkeys([*_PREFERRED, *PRETOKENIZERS]):
        words = PRETOKENIZERS[name]
        if words not in cut:
            cut[words] = _words(build(words))
        if cut[words] == wanted:
            score = 2 * (words.ignore_merges == ignore_merges) + (words.nfc == composes)
            if best is None or score > best[0]:
                best = (score, name)
    if best is None:
        raise Unsupported(
            "GGUF names the ways of cutting words, and this tokenizer's way has no name among those known. "
            "Keep the model as a Hugging Face directory: --to safetensors."
        )
    return best[1]


def _words(cutter: Any) -> list[str]:
    return [text for text, _ in cutter.pre_tokenize_str(_PROBE)]


def _templates(header: Header) -> dict[str, Any]:
    templates = chat_templates(header)
    others = [name for name in templates if name != "default"]
    found: dict[str, Any] = {"tokenizer.chat_template": templates["default"]} if "default" in templates else {}
    if others:
        found["tokenizer.chat_templates"] = others
        found |= {f"tokenizer.chat_template.{name}": templates[name] for name in others}
    return found
