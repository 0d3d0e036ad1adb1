"""What the families share: a call is an object with a name and its arguments; the rest is what stands around it."""

import json
import re
import secrets
import string
from collections.abc import Sequence

from edgewise.text.tools.api import Part, Tool

TEXT = r"/(.|\n)*/"
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_LETTERS = string.ascii_letters + string.digits


def random_id(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def quoted(text: str) -> str:
    """A text in a Lark grammar."""
    return json.dumps(text, ensure_ascii=False)


def call_rules(tools: Sequence[Tool], key: str) -> str:
    """The rule `tool`: one object that calls one of them. key: what the arguments are called."""
    lines = ["tool: " + " | ".join(f"tool_{at}" for at in range(len(tools)))]
    for at, tool in enumerate(tools):
        head = quoted(f'{{"name": {quoted(tool.name)}, {quoted(key)}: ')
        lines += [f'tool_{at}: {head} arguments_{at} "}}"', f"arguments_{at}: {tool.arguments}"]
    return "\n".join(lines)


def answer_grammar(mark: str, opening: str, rest: str, rules: str, *, forced: bool, content: str | None) -> str:
    """An answer that calls, or may call where nothing is forced. opening: how the grammar spells the mark that opens
    calls; rest: what follows it. content: what an answer without a call is held to; None: any text."""
    if forced:
        return f"start: {opening} {rest}\n{rules}"
    if content is not None:
        return f"start: content | {opening} {rest}\ncontent: {content}\n{rules}"
    if opening == quoted(mark):
        return f"start: TEXT | lead {rest}\nlead[lazy]: TEXT {opening}\nTEXT: {TEXT}\n{rules}"
    return f"start: TEXT | TEXT {opening} {rest}\nTEXT: {TEXT}\n{rules}"


class CallParser:
    """opening, closing: around each call, or, with `many`, around all of them. No opening: the answer itself may begin
    as a call does, and is none if it does not; first: how a call begins then."""

    def __init__(self, opening: str, closing: str, *, many: bool = False, first: str = "") -> None:
        self.opening, self.closing, self.many, self.first = opening, closing, many, first
        self._read = self._outside if opening else self._beginning
        self._held = ""
        self._calls = 0
        self._depth = 0
        self._quoted = self._escaped = False

    def push(self, text: str) -> list[Part]:
        self._held += text
        found: list[Part] = []
        while self._read(found):
            pass
        return found

    def flush(self) -> list[Part]:
        """What was held back as text; a call that was cut before its name is known is nobody's."""
        held, self._held = self._held, ""
        return [Part(held)] if held and self._read in (self._outside, self._beginning) else []

    def _beginning(self, found: list[Part]) -> bool:
        held = self._held
        if len(held) < len(self.first) and self.first.startswith(held):
            return False
        self._read = self._head if held.startswith(self.first) else self._text
        return True

    def _text(self, found: list[Part]) -> bool:
        if self._held:
            found.append(Part(self._held))
            self._held = ""
        return False

    def _outside(self, found: list[Part]) -> bool:
        """Text, up to what opens a call or may be the beginning of it. Blanks after a call are no text."""
        held = self._held.lstrip() if self._calls else self._held
        before, mark, after = held.partition(self.opening)
        if mark:
            if before:
                found.append(Part(before))
            self._held, self._read = after, self._head
            return True
        sure = len(held) - _overlap(held, self.opening)
        if sure > 0:
            found.append(Part(held[:sure]))
        self._held = held[max(0, sure) :]
        return False

    def _head(self, found: list[Part]) -> bool:
        held = self._held.lstrip(" [") if self.many else self._held
        match = _HEAD.match(held)
        if match is None:
            return False
        found.append(Part(call=self._calls, name=match[1]))
        self._held, self._read = held[match.end() :], self._arguments
        self._depth = 0
        self._quoted = self._escaped = False
        return True

    def _arguments(self, found: list[Part]) -> bool:
        """Up to the brace that closes the one they began with."""
        held = self._held
        for at, char in enumerate(held):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._quoted = False
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    found.append(Part(call=self._calls, arguments=held[: at + 1]))
                    self._calls += 1
                    self._held, self._read = held[at + 1 :], self._after
                    return True
        if held:
            found.append(Part(call=self._calls, arguments=held))
            self._held = ""
        return False

    def _after(self, found: list[Part]) -> bool:
        """To the end of the call, or to the next one of the list."""
        if self.many and "{" in self._held:
            self._held, self._read = self._held[self._held.index("{") :], self._head
            return True
        if self.closing and self.closing in self._held:
            self._held = self._held.partition(self.closing)[2]
            self._read = self._outside
            return True
        return False


def _overlap(text: str, mark: str) -> int:
    """How much of the text's end may be the beginning of the mark."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
