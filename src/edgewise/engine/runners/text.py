"""One pass of a language model over the new tokens of several sequences, laid end to end.

Paper:  Yu et al., Orca (selective batching), OSDI 2022
Exact.
Needs:  nothing
Cost:   a few microseconds of Python a step beside the model's own calls
Status: kept
"""

import itertools
from collections.abc import Generator, Sequence

import numpy as np

from edgewise.base import SeqId
from edgewise.engine.api import Work
from edgewise.kernels.api import Device, Floats, SeqRows
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Model
from edgewise.models.passes import Pass


class TextRunner:
    """model: embed, blocks, head. kv: where its keys and values live. device: the arrays' owner."""

    def __init__(self, model: Model, kv: KVCache, device: Device) -> None:
        self.model = model
        self.kv = kv
        self.device = device
        self._pass = Pass(model, device)
        self._nothing = np.empty((0, model.spec.vocab), np.float32)
        self._scratch = itertools.count(-1, -1)  # sequences of `score`; requests count up from 0
        self._logits: object = None  # keeps the device's array alive while the caller looks at it

    def step(self, work: Sequence[Work]) -> Floats:
        """New tokens in, logits of the wanted rows out: (sum of wanted, vocab), valid until the next step."""
        if len(work) == 1:  # the commonest step by far; saves a few microseconds of bookkeeping
            only = work[0]
            count = len(only.tokens)
            ids = np.array(only.tokens, np.int32)
            positions = np.arange(only.past, only.past + count, dtype=np.int32)
            seqs: tuple[SeqRows, ...] = (SeqRows(only.seq, 0, count, only.past),)
            outputs = np.arange(count - only.wanted, count, dtype=np.int32)
        else:
            flat: list[int] = []
            place: list[int] = []
            wanted: list[int] = []
            parts: list[SeqRows] = []
            for piece in work:
                start, count = len(flat), len(piece.tokens)
                parts.append(SeqRows(piece.seq, start, count, piece.past))
                flat.extend(piece.tokens)
                place.extend(range(piece.past, piece.past + count))
                wanted.extend(range(start + count - piece.wanted, start + count))
            ids, positions = np.array(flat, np.int32), np.array(place, np.int32)
            outputs, seqs = np.array(wanted, np.int32), tuple(parts)
        batch = Batch(ids, positions, seqs, outputs, self.kv, self.kv.begin(seqs))
        self._logits = self._pass.run(batch)
        self.kv.commit(seqs)
        return self._nothing if self._logits is None else self.device.download(self._logits)

    def score(self, tokens: Sequence[int], chunk: int) -> Generator[Floats, None, None]:
        """Logits of every token, `chunk` rows at a time, from a sequence of its own: arrays (≤ chunk, vocab)."""
        seq = SeqId(next(self._scratch))
        self.kv.open(seq, ())
        try:
            for past in range(0, len(tokens), chunk):
                part = tokens[past : past + chunk]
                self.kv.reserve(seq, past + len(part))
                yield self.step([Work(seq, part, past, len(part))])
        finally:
            self.kv.close(seq)
