"""A family's way of writing calls of tools: how its models are held to it, and how the text is read back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Tool:
    """arguments: its JSON schema as a Lark expression (`%json {...}`)."""

    name: str
    arguments: str


class Part(NamedTuple):
    """Something new in an answer: text; or a piece of its call-th call, the first of which has the name."""

    text: str = ""
    call: int = -1
    name: str = ""
    arguments: str = ""


class ToolParser(Protocol):
    """Reads one answer as it comes. What may still turn out to open a call is held back."""

    def push(self, text: str) -> list[Part]: ...

    def flush(self) -> list[Part]: ...


# How a marker is spelt in a grammar: a token of its own where text cannot say it, else a quoted text.
Spelling = Callable[[str], str]


class ToolFormat(Protocol):
    """grammar: a Lark grammar of the whole answer. most: calls at most. forced: it has to be calls; else it may be
    text, or `content` (a Lark expression), and once a call has been opened it has to be one.
    messages: the conversation as the model's template can take it, None: as it is, the template gets the tools."""

    @classmethod
    def fits(cls, template: str) -> bool: ...

    def grammar(
        self, tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
    ) -> str: ...

    def parser(self) -> ToolParser: ...

    def call_id(self) -> str: ...

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None: ...
