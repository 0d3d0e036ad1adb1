"""L3's contract for what the model remembers. The cache appends *and* attends, so no model file sees a layout."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from edgewise.base import Cap, SeqId
from edgewise.kernels.api import Array, AttnSpec, SeqRows


class Batch(Protocol):
    """The part of a step's batch that a cache needs (models.api.Batch is the whole)."""

    seqs: Sequence[SeqRows]


class KVCache(Protocol):
    """Paged here; quantised, sink, spilled and recurrent state later."""

    gives: ClassVar[frozenset[Cap]]
    replays: ClassVar[bool]  # attend asks the device for the same verbs in every step, whatever the rows and the plan

    def free_tokens(self) -> int: ...

    def length(self, seq: SeqId) -> int: ...  # cached tokens

    def open(self, seq: SeqId, tokens: Sequence[int]) -> int: ...  # length of the reused prefix (0: nothing known)

    def reserve(self, seq: SeqId, length: int) -> None: ...  # pages for `length` tokens in all, or OutOfRoom

    def begin(self, seqs: Sequence[SeqRows]) -> Any: ...  # once a step, after reserve: the plan all layers share

    def attend(self, at: AttnSpec, q: Array, k: Array, v: Array, plan: Any) -> Array: ...  # appends, then attends

    def commit(self, seqs: Sequence[SeqRows]) -> None: ...  # once a step, after all layers: the new tokens are cached

    def rewind(self, seq: SeqId, length: int) -> None: ...  # forget everything after the first `length` tokens

    def fork(self, seq: SeqId, into: SeqId) -> None: ...  # copy on write

    def close(self, seq: SeqId) -> None: ...
