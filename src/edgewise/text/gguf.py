"""What a GGUF file says about its tokenizer: the tokenizer.ggml.* keys, each checked before anything is built."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels.parsing import Strings
from edgewise.kernels.pieces import Pieces
from edgewise.text.specials import Added
from edgewise.weights.api import Header

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # token_type

# Tokens that end a turn, for files that name only one of them.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>",
    "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<|return|>",
)  # fmt: skip


class Fields:
    """Typed access to the metadata table. Every error names the key.

    `tokens` and `ids` are the parser's own strings and an index of them where all of these are UTF-8, so that a
    hundred thousand tokens cost milliseconds; otherwise a list and a dict.
    """

    def __init__(self, header: Header) -> None:
        self.config: Mapping[str, Any] = header.config
        self.name = header.name
        self.tokens = self._tokens()
        self.types = self._types()

    @cached_property
    def ids(self) -> Mapping[str, int]:
        return Pieces(self.tokens) if isinstance(self.tokens, Strings) else self.all_ids()

    def all_ids(self) -> dict[str, int]:
        """String → its last id, for all of them."""
        ids = {text: index for index, text in enumerate(self.tokens)}
        ids.pop("", None)
        return ids

    def get(self, key: str) -> Any:
        return self.config.get(PREFIX + key)

    def _array(self, key: str) -> Sequence[Any] | npt.NDArray[Any] | None:
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
            raise BadInput(f"{PREFIX}{key} must be an array but is {type(value).__name__}: the file is broken.")
        return value

    def strings(self, key: str) -> list[str] | None:
        value = self._array(key)
        if value is None:
            return None
        out = []
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise BadInput(f"{PREFIX}{key}[{index}] must be a string but is {type(item).__name__}.")
            out.append(item if item.isascii() else _clean(item))
        return out

    def numbers(self, key: str, kinds: str, word: str) -> npt.NDArray[Any] | None:
        """A numeric array of one of numpy's kinds ("f" for floats, "iu" for integers), as long as the tokens."""
        value = self._array(key)
        if value is None:
            return None
        if len(value) and isinstance(value[0], str):  # np.asarray would copy a million of them first
            raise BadInput(f"{PREFIX}{key} must be an array of {word} but holds strings.")
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            raise BadInput(f"{PREFIX}{key} must hold {word}.") from None
        if array.ndim != 1 or (len(array) and array.dtype.kind not in kinds):
            raise BadInput(f"{PREFIX}{key} must be an array of {word} but holds {array.dtype}.")
        if len(array) != len(self.tokens):
            raise BadInput(f"{PREFIX}{key} has {len(array)} entries, but {PREFIX}tokens has {len(self.tokens)}.")
        return array

    def table(self, key: str) -> Strings | None:
        """The parser's own array of strings, when there is one and all of them are UTF-8."""
        value = self.get(key)
        return value if isinstance(value, Strings) and value.are_utf8() else None

    def _tokens(self) -> Sequence[str]:
        tokens = self.table("tokens") or self.strings("tokens")
        if not tokens:
            raise BadInput(f"{self.name}: {PREFIX}tokens is missing or empty, so the file carries no vocabulary.")
        return tokens

    def _types(self) -> npt.NDArray[np.int64]:
        types = self.numbers("token_type", "iu", "integers")
        if types is None:
            return np.full(len(self.tokens), NORMAL, np.int64)
        return types.astype(np.int64)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool | np.bool_):
            raise BadInput(f"{PREFIX}{key} must be true or false but is {value!r}.")
        return bool(value)

    def token_id(self, key: str) -> int | None:
        """A token's id; absent or the file format's own "none" (2^32-1) is None."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise BadInput(f"{PREFIX}{key} must be a token id but is {value!r}.")
        value = int(value)
        if value == 0xFFFFFFFF:
            return None
        if not 0 <= value < len(self.tokens):
            raise BadInput(f"{PREFIX}{key} is {value}, but the vocabulary has {len(self.tokens)} tokens.")
        return value

    def default_id(self, key: str, default: int) -> int | None:
        """The same with the kind's default, where that is a control token (or the file types none)."""
        if self.get(key) is not None:
            return self.token_id(key)
        fits = default < len(self.tokens) and (
            self.get("token_type") is None or self.types[default] in (UNKNOWN, CONTROL)
        )
        return default if fits else None

    def ends(self, eos: int | None) -> frozenset[int]:
        """Every id that ends a turn or a text: the file's keys, and control tokens known by name."""
        named = {self.ids[text] for text in _ENDS if text in self.ids and self.types[self.ids[text]] in (CONTROL, USER)}
        keyed = {self.token_id(key) for key in ("eot_token_id", "eom_token_id")} | {eos}
        return frozenset(named | {token for token in keyed if token is not None})

    def of_type(self, *types: int) -> list[int]:
        """Ids of these token types, in order, without empty strings."""
        return [int(i) for i in np.flatnonzero(np.isin(self.types, types)) if self.tokens[int(i)]]

    def control(self, extra: Sequence[int | None] = (), rstrip: frozenset[str] | None = None) -> list[Added]:
        """Control and unknown tokens, and the given ones. rstrip: texts that do not swallow the space after them."""
        ids = sorted({*self.of_type(CONTROL, UNKNOWN), *(i for i in extra if i is not None and self.tokens[i])})
        return [
            Added(i, self.tokens[i], rstrip=rstrip is not None and self.tokens[i] not in rstrip)
            for i in ids
            if self.ids[self.tokens[i]] == i
        ]

    def user(self) -> list[Added]:
        """User-defined tokens: matched in any text."""
        return [Added(i, self.tokens[i]) for i in self.of_type(USER) if self.ids[self.tokens[i]] == i]

    def piece(self, token: int) -> str | None:
        return self.tokens[token] if 0 <= token < len(self.tokens) else None


def _clean(text: str) -> str:
    """Bytes that were not UTF-8 reach us as lone surrogates, which cannot be encoded: they become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
