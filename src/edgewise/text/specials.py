"""Finds the strings of special tokens in a text: leftmost, then longest, the way added tokens are matched."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgewise.base import BadInput

MAX_TOKEN_CHARS = 128  # longer ones would make looking for them slow
_SPACE = re.compile(r"\s*")


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


@dataclass(frozen=True)
class Added:
    """A token matched before the model sees the text. lstrip, rstrip: it swallows white space on that side."""

    id: int
    text: str
    lstrip: bool = False
    rstrip: bool = False


class SpecialFinder:
    """Looks up candidates by first character and length, so thousands of tokens cost no more than a few."""

    def __init__(self, tokens: Iterable[Added]) -> None:
        self.tokens = {token.text: token for token in tokens if token.text}
        for text in self.tokens:
            if len(text) > MAX_TOKEN_CHARS:
                raise BadInput(f"An added token has {len(text)} characters; at most {MAX_TOKEN_CHARS} are believable.")
        lengths: dict[str, set[int]] = {}
        for text in self.tokens:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {char: sorted(found, reverse=True) for char, found in lengths.items()}
        self._begun: frozenset[str] | None = None  # every beginning of a token that is not the whole of it
        self._first = re.compile("[" + "".join(re.escape(char) for char in lengths) + "]") if lengths else None

    def matches(self, text: str, overlapping: bool = False) -> Iterator[tuple[int, int, Added]]:
        """(start, end, token), bare of white space; with overlapping, the longest one at every start."""
        at = 0
        while self._first is not None:
            hit = self._first.search(text, at)
            if hit is None:
                return
            start = hit.start()
            at = start + 1
            for length in self._lengths[text[start]]:
                token = self.tokens.get(text[start : start + length])
                if token is not None:
                    yield start, start + length, token
                    if not overlapping:
                        at = start + length
                    break

    def split(self, text: str, breaker: str = "") -> list[str | int]:
        """Text pieces and token ids, in order; empty pieces are left out. What a breaker broke stays text."""
        out: list[str | int] = []
        done = 0
        for start, end, token in self.matches(text):
            if start < done or (breaker and end == start + 1 and text.endswith(breaker, 0, start)):
                continue
            before = text[done:start]
            if token.lstrip:
                before = before.rstrip()
            if before:
                out.append(before)
            out.append(token.id)
            done = end
            if token.rstrip:
                done = _end_of_space(text, done)
        if done < len(text):
            out.append(text[done:])
        return out

    def break_up(self, text: str, breaker: str) -> str:
        """Puts a breaker inside every occurrence, and after an ending that the next string could complete."""
        cuts = set()
        for start, end, _ in self.matches(text, overlapping=True):
            cuts.add(start + 1 if end > start + 1 else start)  # one character cannot be cut: the breaker goes before
        if self._unfinished(text):
            cuts.add(len(text))
        out, done = [], 0
        for cut in sorted(cuts):
            out += [text[done:cut], breaker]
            done = cut
        out.append(text[done:])
        return "".join(out)

    def _unfinished(self, text: str) -> bool:
        if self._begun is None:
            self._begun = frozenset(known[:end] for known in self.tokens for end in range(1, len(known)))
        longest = max((found[0] for found in self._lengths.values()), default=1)
        return any(text[-size:] in self._begun for size in range(1, min(longest, len(text) + 1)))
