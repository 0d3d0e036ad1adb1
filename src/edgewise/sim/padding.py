"""What whole batches cost without ragged kernels, computed for real: the baseline that Orca measured itself against."""

from collections.abc import Sequence
from typing import Any

from edgewise.base import SeqId
from edgewise.engine.api import Runner, Work
from edgewise.kernels.api import Floats

FIRST = -2_000_000  # its own sequences count down from here; forks of the engine from -1,000,000


class PaddedBatches:
    """A runner around another one, for a policy that keeps prompts and decoding apart. Before a batch decodes, every
    prompt that is shorter than the longest computes the rows that it lacks; while it decodes, every sequence that is
    done computes a row a step until the last is. They take room in the
    cache that the engine does not know of.

    Less than FasterTransformer does: the added rows attend only to each other."""

    def __init__(self, inner: Runner, kv: Any, chunk: int = 512) -> None:
        self.inner, self.kv, self.chunk = inner, kv, chunk
        self.padded = 0  # rows computed for nothing
        self._prompts: dict[SeqId, int] = {}  # of the batch, while it grows
        self._pads: dict[SeqId, SeqId] = {}  # of the batch, while it decodes
        self._rows = 0
        self._next = FIRST

    def step(self, work: Sequence[Work]) -> Floats:
        self._rows = sum(piece.wanted for piece in work)
        if any(len(piece.tokens) > 1 or not piece.past for piece in work):
            self.clear()
            self._prompts |= {piece.seq: piece.past + len(piece.tokens) for piece in work}
            return self.inner.step(work)
        if self._prompts:
            self._pad()
        here = {piece.seq for piece in work}
        extra = [self._grow(pad, 1) for seq, pad in self._pads.items() if seq not in here]
        return self.inner.step([*work, *extra])[: self._rows]

    def peaks(self) -> Sequence[int]:
        return self.inner.peaks()[: self._rows]

    def clear(self) -> None:
        for pad in self._pads.values():
            self.kv.close(pad)
        self._pads.clear()

    def _pad(self) -> None:
        longest = max(self._prompts.values())
        short = {}
        for seq, length in self._prompts.items():
            pad = self._pads[seq] = SeqId(self._next)
            self._next -= 1
            self.kv.open(pad, ())
            short[pad] = longest - length
        self._prompts.clear()
        while any(short.values()):
            rows, work = self.chunk, []
            for pad, left in short.items():
                if (count := min(left, rows)) > 0:
                    work.append(self._grow(pad, count))
                    short[pad] -= count
                    rows -= count
            self.inner.step(work)

    def _grow(self, pad: SeqId, count: int) -> Work:
        past = self.kv.length(pad)
        self.kv.reserve(pad, past + count)
        self.padded += count
        return Work(pad, [0] * count, past, 1)
