"""L3's contract for what the model remembers. The cache appends *and* attends, so no model file sees a layout."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from edgewise.base import Cap, SeqId
from edgewise.kernels.api import Array, AttnSpec, SeqRows

Chunk = npt.NDArray[np.uint8]  # one layer's part of a sequence


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

    # once a step, after reserve: the plan all layers share. copies: (row, seq, position), further sequences that a row
    # belongs to: the branches of a tree are forks, and what two of them share is computed once
    def begin(self, seqs: Sequence[SeqRows], copies: Sequence[tuple[int, SeqId, int]] = ()) -> Any: ...

    def attend(self, at: AttnSpec, q: Array, k: Array, v: Array, plan: Any) -> Array: ...  # appends, then attends

    def commit(self, seqs: Sequence[SeqRows]) -> None: ...  # once a step, after all layers: the new tokens are cached

    def rewind(self, seq: SeqId, length: int) -> None: ...  # forget everything after the first `length` tokens

    def fork(self, seq: SeqId, into: SeqId) -> None: ...  # copy on write

    def become(self, seq: SeqId, other: SeqId) -> None: ...  # seq is closed, and other goes on under its name

    def remember(self, seq: SeqId, tokens: Sequence[int]) -> None: ...  # its tokens so far: others may reuse them

    # the layers' bytes of the tokens from `start` (a whole page) on; of use to a cache of the same shape only
    def export(self, seq: SeqId, start: int = 0) -> Iterator[Chunk]: ...

    # what another exported, into pages that were reserved: tokens [start, length) are cached then
    def adopt(self, seq: SeqId, length: int, chunks: Iterable[Chunk], start: int = 0) -> None: ...

    def close(self, seq: SeqId) -> None: ...


class Swap(Protocol):
    """Where exported pages wait while their sequence has none. Nothing here ever raises for a disk's fault: what cannot
    be kept or read back correctly is computed again."""

    stalled_s: float  # how long callers have waited for it

    def put(self, seq: SeqId, length: int, chunks: Iterable[Chunk]) -> bool: ...  # False: not kept

    def fetch(self, seq: SeqId) -> None: ...  # begins to read, and returns

    def take(self, seq: SeqId) -> tuple[int, Sequence[Chunk]] | None: ...  # (length, chunks), and forgets; None: lost

    def drop(self, seq: SeqId) -> None: ...

    def seconds(self, nbytes: int) -> float: ...  # until so much is written and read back, as measured so far

    def close(self) -> None: ...
