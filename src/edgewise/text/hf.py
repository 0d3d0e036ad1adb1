"""The tokenizer of a Hugging Face directory: tokenizer.json, with what tokenizer_config.json says about it.

Paper: none (https://github.com/huggingface/tokenizers)
Exact. Text encodes as in transformers, except that special strings in it stay text unless asked for.
Needs: tokenizer.json.
Cost: about 0.4 s and 100 MB for 150,000 tokens.
Status: kept.
"""

import re
from collections.abc import Mapping
from typing import Any

import tokenizers

from edgewise.base import BadInput, Unsupported
from edgewise.text.excerpts import Excerpts
from edgewise.text.regexes import REWRITTEN, check_patterns, patterns_in
from edgewise.text.specials import Added
from edgewise.text.tokenizer import Parts, RustTokenizer, added_tokens, build_parts, component
from edgewise.weights import bundle
from edgewise.weights.api import Header

MAX_JSON_BYTES = 1 << 27  # the largest published tokenizer.json has 35 MB
MAX_CONFIG_BYTES = 1 << 24
# Added tokens that steer the model even when their file does not flag them as special.
_CONTROL = re.compile(r"<\|.*\|>|<｜.*｜>|\[/?INST\]|</?s>|<(start|end)_of_turn>|<bos>|<eos>", re.DOTALL)


class HfTokenizer(RustTokenizer):
    """A tokenizer.json and its companions."""

    def __init__(self, header: Header) -> None:
        path = bundle.member(header.folder, "tokenizer.json")
        if not bundle.exists(path):
            raise BadInput(f"{header.folder}: there is no tokenizer.json, so text cannot be tokenised.")
        backend = _open(path, bundle.read_bytes(path, MAX_JSON_BYTES))
        config = tokenizer_config(header)
        added = {i: token for i, token in backend.get_added_tokens_decoder().items() if token.content}
        entries = {i: Added(i, t.content, t.lstrip, t.rstrip) for i, t in added.items()}
        special = frozenset(i for i, token in added.items() if token.special)
        control = [entry for i, entry in entries.items() if i in special or _CONTROL.fullmatch(entry.text)]
        backend.add_special_tokens(added_tokens([entry for entry in control if entry.id not in special], special=True))
        names = special_strings(config)
        bos = _bos(backend, header, names)
        flag = config.get("add_bos_token")
        super().__init__(
            Parts(
                backend=Excerpts.of(backend), vocab=_vocab(backend, entries), bos=bos, eos=_eos(backend, header, names),
                special=special, control=tuple(control),
                matched=tuple(entries[i] for i in entries if entries[i] not in control),
                add_bos=flag if isinstance(flag, bool) else _begins_with_bos(backend, bos),
                decoder=component(backend.decoder), piece=_piece(backend),
            )
        )  # fmt: skip


def _open(path: Any, data: bytes) -> tokenizers.Tokenizer:
    """The tokenizer, once its patterns are shown to be harmless. Raises BadInput naming the file."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from None
    seen = patterns_in(text)
    check_patterns(seen, str(path))
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise BadInput(f"{path} is not a tokenizer: {_first_line(error)}.") from None
    if type(backend.model).__name__ not in ("BPE", "Unigram", "WordPiece", "WordLevel"):
        raise Unsupported(f"{path}: the model '{type(backend.model).__name__}' is not known.")
    cutter = component(backend.pre_tokenizer)
    parts = [component(backend.normalizer), cutter, component(backend.decoder)]
    if not set(_patterns_of(parts)) <= set(seen):
        raise BadInput(f"{path} hides a pattern in a way that cannot be checked.")
    if any(pattern in REWRITTEN for pattern in seen):
        backend.pre_tokenizer = build_parts(None, _rewritten(cutter)).pre_tokenizer
    return backend


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _patterns_of(item: Any) -> list[str]:
    if isinstance(item, list):
        return [pattern for inner in item for pattern in _patterns_of(inner)]
    if isinstance(item, dict):
        own = [item["Regex"]] if isinstance(item.get("Regex"), str) else []
        return own + [pattern for inner in item.values() for pattern in _patterns_of(inner)]
    return []


def _rewritten(item: Any) -> Any:
    if isinstance(item, list):
        return [_rewritten(inner) for inner in item]
    if isinstance(item, dict):
        return {
            key: REWRITTEN.get(value, value) if key == "Regex" else _rewritten(value) for key, value in item.items()
        }
    return item


def tokenizer_config(header: Header) -> Mapping[str, Any]:
    """tokenizer_config.json, completed from special_tokens_map.json; empty when neither exists."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = bundle.member(header.folder, name)
        if bundle.exists(path):
            found.update({k: v for k, v in bundle.read_json(path, MAX_CONFIG_BYTES).items() if v is not None})
    return found


def special_strings(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... that are set: a string, or an object with its content."""
    found = {}
    for key, value in config.items():
        if not key.endswith("_token") or isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            found[key] = value
        elif value is not None:
            raise BadInput(f"tokenizer_config.json: {key} must be a string but is {type(value).__name__}.")
    return found


def _bos(backend: tokenizers.Tokenizer, header: Header, names: Mapping[str, str]) -> int | None:
    if "bos_token" in names:
        found: int | None = backend.token_to_id(names["bos_token"])
        return found
    listed = sorted(_ids(header, "bos_token_id"))
    return listed[0] if listed and backend.id_to_token(listed[0]) is not None else None


def _eos(backend: tokenizers.Tokenizer, header: Header, names: Mapping[str, str]) -> frozenset[int]:
    named = backend.token_to_id(names["eos_token"]) if "eos_token" in names else None
    return frozenset(_ids(header, "eos_token_id") | ({named} if named is not None else set()))


def _ids(header: Header, key: str) -> set[int]:
    """Ids from generation_config.json and config.json: a number or a list of numbers."""
    found: set[int] = set()
    for source, name in ((header.generation, "generation_config.json"), (header.config, "config.json")):
        value = source.get(key)
        if value is None and isinstance(source.get("text_config"), Mapping):
            value = source["text_config"].get(key)
        for token in value if isinstance(value, list) else [value]:
            if token is None:
                continue
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 1 << 31:
                raise BadInput(f"{name}: {key} must be a token id or a list of them but is {value!r}.")
            found.add(token)
    return found


def _begins_with_bos(backend: tokenizers.Tokenizer, bos: int | None) -> bool:
    """Whether tokenizer.json's post-processor puts BOS before a text."""
    try:
        return bos is not None and list(backend.encode("", add_special_tokens=True).ids)[:1] == [bos]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise BadInput(f"tokenizer.json has a post-processor that fails: {_first_line(error)}.") from None


def _vocab(backend: tokenizers.Tokenizer, added: Mapping[int, Added]) -> int:
    known = backend.get_vocab(with_added_tokens=False)
    highest = max([*known.values(), *added], default=-1)
    if highest < 0:
        raise BadInput("tokenizer.json has an empty vocabulary.")
    if highest >= 1 << 24:
        raise BadInput(f"tokenizer.json numbers a token {highest}; at most {(1 << 24) - 1} is believable.")
    return int(highest) + 1


def _piece(backend: tokenizers.Tokenizer) -> Any:
    def piece(token: int) -> str | None:
        found: str | None = backend.id_to_token(token) if 0 <= token < 1 << 32 else None
        return found

    return piece


def chat_templates(header: Header) -> dict[str, str]:
    """Name → template. chat_template.jinja wins over tokenizer_config.json, as in transformers."""
    path = bundle.member(header.folder, "chat_template.jinja")
    if bundle.exists(path):
        try:
            return {"default": bundle.read_bytes(path, MAX_CONFIG_BYTES).decode("utf-8")}
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from None
    value = tokenizer_config(header).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(
        isinstance(item, Mapping) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str)
        for item in value
    ):
        return {item["name"]: item["template"] for item in value}
    raise BadInput(f"{header.folder}: chat_template must be a string or a list of names and templates.")
