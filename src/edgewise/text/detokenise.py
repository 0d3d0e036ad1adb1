"""Ids back to text, a token at a time. Each decoder of tokenizer.json becomes a small state machine.

The chain gives, over a whole sequence, character for character what `tokenizers` gives for decode(ids); it holds back
only what a later token could still change (an unfinished character, a run of byte tokens). Cost: O(1) per token.
"""

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgewise.base import Unsupported

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte value: printable Latin-1 stays, the rest moves up from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(moved)) for b in range(256)]


_BYTE_OF = {char: value for value, char in enumerate(byte_alphabet())}


class Step(Protocol):
    """One decoder of the chain: strings in, strings out; `finish` releases what was held back."""

    def feed(self, parts: list[str]) -> list[str]: ...

    def finish(self) -> list[str]: ...


class _Replace:
    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def feed(self, parts: list[str]) -> list[str]:
        return [part.replace(self._old, self._new) for part in parts]

    def finish(self) -> list[str]:
        return []


class _ByteFallback:
    """Runs of <0xNN> tokens become text. A run that is not UTF-8 becomes one U+FFFD a byte, so it waits for its end."""

    def __init__(self) -> None:
        self._run = bytearray()

    def feed(self, parts: list[str]) -> list[str]:
        out: list[str] = []
        for part in parts:
            match = _BYTE_TOKEN.fullmatch(part)
            if match:
                self._run.append(int(match[1], 16))
            else:
                out += self.finish()
                out.append(part)
        return out

    def finish(self) -> list[str]:
        run, self._run = bytes(self._run), bytearray()
        if not run:
            return []
        try:
            return [run.decode("utf-8")]
        except UnicodeDecodeError:
            return ["\ufffd"] * len(run)


class _Fuse:
    """Marks that what follows is one string; joining is the stream's own nature."""

    def feed(self, parts: list[str]) -> list[str]:
        return parts

    def finish(self) -> list[str]:
        return []


class _StripEach:
    """Cuts up to `start` and `stop` copies of a character off every part."""

    def __init__(self, char: str, start: int, stop: int) -> None:
        self._char, self._start, self._stop = char, start, stop

    def feed(self, parts: list[str]) -> list[str]:
        return [self._cut(part) for part in parts]

    def _cut(self, part: str) -> str:
        begin = 0
        while begin < min(self._start, len(part)) and part[begin] == self._char:
            begin += 1
        end = len(part)
        while end > begin and len(part) - end < self._stop and part[end - 1] == self._char:
            end -= 1
        return part[begin:end]

    def finish(self) -> list[str]:
        return []


class _StripWhole:
    """The same for the whole text: cuts at its beginning, holds back what may turn out to be its end."""

    def __init__(self, char: str, start: int, stop: int) -> None:
        self._char, self._left, self._stop = char, start, stop
        self._held = 0  # copies of char at the end of what was seen

    def feed(self, parts: list[str]) -> list[str]:
        out = []
        for part in parts:
            while self._left and part.startswith(self._char):
                part = part[1:]
                self._left -= 1
            if not part:
                continue
            self._left = 0
            part, self._held = self._char * self._held + part, 0
            if self._stop:
                kept = len(part.rstrip(self._char))
                self._held = min(len(part) - kept, self._stop)
                part = part[: len(part) - self._held]
            out.append(part)
        return out

    def finish(self) -> list[str]:
        return []


class _Metaspace:
    """▁ becomes a space; in the first token it disappears when the encoder put it there."""

    def __init__(self, mark: str, drop_first: bool) -> None:
        self._mark, self._drop = mark, drop_first

    def feed(self, parts: list[str]) -> list[str]:
        out = []
        for part in parts:
            out.append(part.replace(self._mark, "" if self._drop else " "))
            self._drop = False
        return out

    def finish(self) -> list[str]:
        return []


class _ByteLevel:
    """GPT-2's byte alphabet; invalid UTF-8 becomes U+FFFD, one per maximal broken piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, parts: list[str]) -> list[str]:
        out = []
        for part in parts:
            try:
                data = bytes([_BYTE_OF[char] for char in part])
            except KeyError:  # an added token outside the alphabet stands for itself
                data = part.encode("utf-8", "replace")
            out.append(self._decoder.decode(data))
        return out

    def finish(self) -> list[str]:
        return [self._decoder.decode(b"", True)]


class _JoinSpaces:
    """No decoder at all: tokens joined by one space."""

    def __init__(self) -> None:
        self._first = True

    def feed(self, parts: list[str]) -> list[str]:
        out = []
        for part in parts:
            out.append(part if self._first else " " + part)
            self._first = False
        return out

    def finish(self) -> list[str]:
        return []


class Chain:
    """A recipe for streams, made once per tokenizer from the decoder's description in tokenizer.json's words.

    Raises Unsupported, naming the decoder, when there is no state machine for it.
    """

    def __init__(self, description: dict[str, Any] | None) -> None:
        self._makers: list[Callable[[], Step]] = []
        self._whole = False  # a step before this one joined the parts
        if description is None:
            self._makers.append(_JoinSpaces)
        else:
            self._add(description)

    def _add(self, item: dict[str, Any]) -> None:
        kind = item.get("type")
        if kind == "Sequence":
            for inner in item["decoders"]:
                self._add(inner)
        elif kind == "ByteLevel":
            self._makers.append(_ByteLevel)
            self._whole = True
        elif kind == "ByteFallback" and not self._whole:
            self._makers.append(_ByteFallback)
        elif kind == "Fuse":
            self._makers.append(_Fuse)
            self._whole = True
        elif kind == "Replace" and len(item["pattern"].get("String", "")) in ((1,) if self._whole else range(1, 1000)):
            old, new = item["pattern"]["String"], item["content"]
            self._makers.append(lambda: _Replace(old, new))
        elif kind == "Strip":
            char, start, stop = item["content"], item["start"], item["stop"]
            strip = _StripWhole if self._whole else _StripEach
            self._makers.append(lambda: strip(char, start, stop))
        elif kind == "Metaspace" and not self._whole:
            mark, drop = item["replacement"], item.get("prepend_scheme", "always") != "never"
            self._makers.append(lambda: _Metaspace(mark, drop))
        else:
            raise Unsupported(
                f"tokenizer.json uses the decoder '{kind}' in a way that cannot be streamed. Known: ByteLevel, "
                "ByteFallback, Fuse, Metaspace, Replace, Strip, and sequences of them."
            )

    def steps(self) -> list[Step]:
        return [make() for make in self._makers]


def piece_bytes(description: dict[str, Any] | None) -> Callable[[str], bytes]:
    """What a token's string adds, as bytes, to a text that has begun: the same decoders, where halves of characters
    stay halves. Raises Unsupported where tokens are words and the spaces between them are nobody's."""
    steps = _flat(description)
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        return _level_bytes
    if not steps:
        raise Unsupported("This tokenizer's tokens are words without their spaces, which no grammar can be held to.")
    replaced = [(step["pattern"]["String"], step["content"]) for step in steps if step.get("type") == "Replace"]
    replaced += [(step["replacement"], " ") for step in steps if step.get("type") == "Metaspace"]
    bytewise = "ByteFallback" in kinds

    def bytes_of(piece: str) -> bytes:
        match = _BYTE_TOKEN.fullmatch(piece) if bytewise and piece[:1] == "<" else None
        if match:
            return bytes([int(match[1], 16)])
        for old, new in replaced:
            piece = piece.replace(old, new)
        return piece.encode("utf-8", "replace")

    return bytes_of


def _level_bytes(piece: str) -> bytes:
    try:
        return bytes([_BYTE_OF[char] for char in piece])
    except KeyError:  # an added token outside the alphabet stands for itself
        return piece.encode("utf-8", "replace")


def _flat(description: dict[str, Any] | None) -> list[dict[str, Any]]:
    if description is None:
        return []
    if description.get("type") == "Sequence":
        return [step for inner in description["decoders"] for step in _flat(inner)]
    return [description]


class Stream:
    """One sequence being detokenised. `piece` gives a token's string, or None where the id means nothing."""

    def __init__(self, chain: Chain, piece: Callable[[int], str | None], skip: frozenset[int]) -> None:
        self._steps = chain.steps()
        self._piece = piece
        self._skip = skip

    def push(self, token: int) -> str:
        """The text that this token makes certain: never half a character."""
        if token in self._skip:
            return ""
        piece = self._piece(token)
        if piece is None:
            return ""
        parts = [piece]
        for step in self._steps:
            parts = step.feed(parts)
        return "".join(parts)

    def flush(self) -> str:
        """What was held back; broken characters at the end come out as U+FFFD."""
        parts: list[str] = []
        for step in self._steps:
            parts = step.feed(parts) + step.finish()
        return "".join(parts)

    def all(self, ids: Sequence[int]) -> str:
        return "".join([self.push(token) for token in ids]) + self.flush()
