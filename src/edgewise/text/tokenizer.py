"""The tokenizer every kind ends up as: `tokenizers` encodes, our own chain decodes, specials are found by ourselves.

Text handed to `tokenizers` never parses special tokens; where they are wanted, the text is cut at them first. So there
is one place where a string can become a control token.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tokenizers

from edgewise.base import BadInput
from edgewise.text.detokenise import Chain, Stream, piece_bytes
from edgewise.text.excerpts import Excerpts
from edgewise.text.specials import Added, SpecialFinder

MAX_TEXT_CHARS = 1 << 26  # above this an encoding would not fit the machines this is for


@dataclass(frozen=True)
class Parts:
    """What a kind of tokenizer knows about itself. decoder is described in tokenizer.json's words."""

    backend: Excerpts
    vocab: int
    bos: int | None
    eos: frozenset[int]
    special: frozenset[int]  # dropped by skip_special
    control: tuple[Added, ...]  # become ids only where special tokens are parsed
    add_bos: bool
    decoder: dict[str, Any] | None
    piece: Callable[[int], str | None]
    matched: tuple[Added, ...] = field(default=())  # added tokens that plain text may contain
    pieces: Iterable[str] | None = None  # the strings of all ids, where that is faster than asking for each


class RustTokenizer:
    """text.api.Tokenizer over a `tokenizers` object. Thread-safe: only a cache changes after construction."""

    def __init__(self, parts: Parts) -> None:
        self.vocab = parts.vocab
        self.bos = parts.bos
        self.eos = parts.eos
        self.special = parts.special
        self.add_bos = parts.add_bos and parts.bos is not None
        self.decoder = parts.decoder
        self._piece, self._pieces = parts.piece, parts.pieces
        self._chain = Chain(parts.decoder)
        self._finder = SpecialFinder(parts.control)
        self._matched = SpecialFinder(parts.matched)
        self._also: tuple[str, SpecialFinder] | None = None  # the last template and the added tokens it names
        self._main = parts.backend
        self._bare, self._prefix_after_special = self._main, True
        flags = _prefixes(self._main.sample())
        if flags:
            self._bare, self._prefix_after_special = self._main.changed(_without_prefix), "always" in flags

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The whole tokenizer of the library, for those who write tokenizers to files."""
        return self._main.whole()

    @property
    def control(self) -> SpecialFinder:
        """Tokens that text becomes only with parse_special."""
        return self._finder

    @property
    def matched(self) -> SpecialFinder:
        """Added tokens that are not control tokens: their strings in a text are always matched."""
        return self._matched

    def break_up(self, text: str, breaker: str, *, also: str = "") -> str:
        """The text with a breaker inside every control string, and inside every other added token named in `also`."""
        text = self._finder.break_up(text, breaker)
        if also:
            cached = self._also
            if cached is None or cached[0] != also:
                cached = also, SpecialFinder(t for t in self._matched.tokens.values() if _steers(t.text, also))
                self._also = cached
            text = cached[1].break_up(text, breaker)
        return text

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = False, breaker: str = ""
    ) -> list[int]:
        """Ids of a text. add_special: BOS first, where the model expects it. parse_special: control strings become ids.

        breaker: one character that is dropped, and inside which no special string is recognised.
        Raises BadInput for text with lone surrogates or beyond the size limit.
        """
        if len(text) > MAX_TEXT_CHARS:
            raise BadInput(f"The text has {len(text)} characters; at most {MAX_TEXT_CHARS} are tokenised at once.")
        ids = [self.bos] if add_special and self.add_bos and self.bos is not None else []
        if not parse_special:
            return ids + self._plain(text, breaker, self._main)
        first = True
        for part in self._finder.split(text, breaker):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._plain(part, breaker, self._main if first or self._prefix_after_special else self._bare)
            first = False
        return ids

    def _plain(self, text: str, breaker: str, backend: Excerpts) -> list[int]:
        if not breaker or breaker not in text:
            return _ids(backend, text)
        whole = text.replace(breaker, "")
        ids: list[int] = []
        done = 0
        for cut in self._cuts(text, whole, breaker):
            ids += _ids(self._bare if done else backend, whole[done:cut])
            done = cut
        return ids + _ids(self._bare if done else backend, whole[done:])

    def _cuts(self, text: str, whole: str, breaker: str) -> list[int]:
        """Where to cut `whole` so that no added token forms across a breaker."""
        breaks, seen = [], 0
        for piece in text.split(breaker)[:-1]:
            seen += len(piece)
            breaks.append(seen)
        spans = [(start, end) for start, end, _ in self._matched.matches(whole, overlapping=True)]
        return sorted({at for at in breaks for start, end in spans if start < at < end}) if spans else []

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids, as `tokenizers` decodes them; ids that mean nothing are skipped."""
        return self._stream(skip_special).all(ids)

    def stream(self, *, skip_special: bool = True) -> Stream:
        return self._stream(skip_special)

    def _stream(self, skip_special: bool) -> Stream:
        return Stream(self._chain, self._piece, self.special if skip_special else frozenset())

    def piece(self, token: int) -> str:
        """The vocabulary's own string for an id ("" for a hole). Raises BadInput for an id outside the vocabulary."""
        if not 0 <= token < self.vocab:
            raise BadInput(f"Token {token} is outside the vocabulary of {self.vocab}.")
        return self._piece(token) or ""

    def token_bytes(self) -> list[bytes | None]:
        """Of every id, what it adds to a text that goes on; None for control tokens and for holes."""
        bytes_of = piece_bytes(self.decoder)
        pieces = map(self._piece, range(self.vocab)) if self._pieces is None else self._pieces
        found: list[bytes | None] = [bytes_of(piece) if piece else None for piece in pieces]
        for token in (*self.special, *(added.id for added in self._finder.tokens.values())):
            found[token] = None
        return found


def _steers(text: str, template: str) -> bool:
    return len(text) > 1 and not text.isspace() and text in template


def _ids(backend: Excerpts, text: str) -> list[int]:
    if not text:
        return []
    try:
        return backend.encode(text)
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise BadInput("The text contains lone surrogates, which are not Unicode text.") from None
        raise BadInput(f"The tokenizer cannot encode this text: {error}.") from None


def component(part: Any) -> dict[str, Any] | None:
    """A normalizer, pre-tokenizer, decoder or post-processor in tokenizer.json's words."""
    if part is None:
        return None
    state = part.__getstate__()
    described: dict[str, Any] = json.loads(state)
    return described


def build_parts(normalizer: Any, pre_tokenizer: Any) -> tokenizers.Tokenizer:
    """An empty tokenizer carrying the two parts, from their descriptions."""
    return tokenizers.Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
                "model": {"type": "BPE", "vocab": {}, "merges": []},
            }
        )
    )  # fmt: skip


def _prefixes(backend: tokenizers.Tokenizer) -> set[str]:
    """"always" or "first" when it puts a space before a text (and after special tokens, too; or not)."""
    flags: set[str] = set()
    _strip_prefix(component(backend.normalizer), flags)
    _strip_prefix(component(backend.pre_tokenizer), flags)
    return flags


def _without_prefix(main: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A twin, sharing the vocabulary, that puts no space before a text."""
    normalizer = _strip_prefix(component(main.normalizer), set())
    pre_tokenizer = _strip_prefix(component(main.pre_tokenizer), set())
    empty = build_parts(normalizer, pre_tokenizer)
    bare = tokenizers.Tokenizer(main.model)
    if normalizer is not None:
        bare.normalizer = empty.normalizer
    if pre_tokenizer is not None:
        bare.pre_tokenizer = empty.pre_tokenizer
    added = sorted(main.get_added_tokens_decoder().items())
    bare.add_tokens([token for _, token in added])
    bare.add_special_tokens([token for _, token in added if token.special])
    return bare


def _strip_prefix(item: Any, flags: set[str]) -> Any:
    """The description without what adds a leading space; flags collect "always" or "first"."""
    if isinstance(item, list):
        return [kept for kept in (_strip_prefix(inner, flags) for inner in item) if kept is not None]
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in item else "pretokenizers"
        return {**item, key: _strip_prefix(item[key], flags)}
    if kind == "Prepend":
        flags.add("always")
        return None
    if kind == "Metaspace" and item.get("prepend_scheme", "always") != "never":
        flags.add(item.get("prepend_scheme", "always"))
        return {**item, "prepend_scheme": "never"}
    if kind == "ByteLevel" and item.get("add_prefix_space"):
        flags.add("always")
        return {**item, "add_prefix_space": False}
    return item


def added_tokens(tokens: Iterable[Added], special: bool) -> list[tokenizers.AddedToken]:
    """The same as `tokenizers` objects, matched in raw text."""
    return [
        tokenizers.AddedToken(t.text, lstrip=t.lstrip, rstrip=t.rstrip, normalized=False, special=special)
        for t in tokens
    ]
