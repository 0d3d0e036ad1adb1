"""L5's contract for words and tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Detokenizer(Protocol):
    """Incremental: push ids, get text that never ends inside a UTF-8 character; concatenation equals decode()."""

    def push(self, token: int) -> str: ...

    def flush(self) -> str: ...


class Tokenizer(Protocol):
    vocab: int  # number of ids the tokenizer can produce
    bos: int | None
    eos: frozenset[int]  # every id that ends a turn or a text
    special: frozenset[int]
    add_bos: bool  # the model expects BOS before plain text

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = False, breaker: str = ""
    ) -> list[int]: ...  # breaker: one character that is dropped and keeps the special string around it plain text

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str: ...

    def piece(self, token: int) -> str: ...  # the vocabulary's own string for an id

    # of every id, what it adds to a text that goes on, bytes of a character or several; None: control tokens and holes
    def token_bytes(self) -> list[bytes | None]: ...

    def stream(self, *, skip_special: bool = True) -> Detokenizer: ...

    def break_up(self, text: str, breaker: str, *, also: str = "") -> str: ...  # breaks special strings; see encode


class ChatTemplate(Protocol):
    def source(self, tools: object = None) -> str: ...  # the text of the template that would be used

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str: ...  # exactly the template's output

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]: ...  # message text never becomes a special token
