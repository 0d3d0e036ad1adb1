"""A swap file whose disk is a rate: one transfer after another, beside the computing, waited for when needed."""

from collections.abc import Iterable, Sequence

from edgewise.base import Clock, SeqId
from edgewise.kv.api import Chunk


class RatedSwap:
    """rate: bytes a second. token_bytes: what a token weighs. staging_bytes: copies that may wait to be written."""

    def __init__(self, clock: Clock, rate: float, token_bytes: int, staging_bytes: int) -> None:
        self.clock, self.rate, self.token_bytes, self.staging_bytes = clock, rate, token_bytes, staging_bytes
        self.stalled_s = 0.0
        self._free_at = 0.0  # when the disk has done all it was asked
        self._writes: list[tuple[float, int]] = []  # (when it is done, bytes)
        self._kept: dict[SeqId, tuple[int, list[Chunk]]] = {}
        self._read_at: dict[SeqId, float] = {}

    def _transfer(self, nbytes: int) -> float:
        self._free_at = max(self._free_at, self.clock.now()) + nbytes / self.rate
        return self._free_at

    def _wait(self, until: float) -> None:
        late = until - self.clock.now()
        if late > 0:
            self.stalled_s += late
            self.clock.sleep(late)

    def put(self, seq: SeqId, length: int, chunks: Iterable[Chunk]) -> bool:
        nbytes = length * self.token_bytes
        self._kept[seq] = length, list(chunks)
        self._read_at.pop(seq, None)
        self._writes = [entry for entry in self._writes if entry[0] > self.clock.now()]
        while self._writes and sum(entry[1] for entry in self._writes) + nbytes > self.staging_bytes:
            self._wait(self._writes.pop(0)[0])
        self._writes.append((self._transfer(nbytes), nbytes))
        return True

    def fetch(self, seq: SeqId) -> None:
        if seq in self._kept and seq not in self._read_at:
            self._read_at[seq] = self._transfer(self._kept[seq][0] * self.token_bytes)

    def take(self, seq: SeqId) -> tuple[int, Sequence[Chunk]] | None:
        if seq not in self._kept:
            return None
        self.fetch(seq)
        self._wait(self._read_at.pop(seq))
        return self._kept.pop(seq)

    def drop(self, seq: SeqId) -> None:
        self._kept.pop(seq, None)
        self._read_at.pop(seq, None)

    def seconds(self, nbytes: int) -> float:
        return max(0.0, self._free_at - self.clock.now()) + 2 * nbytes / self.rate

    def close(self) -> None:
        self._kept.clear()
