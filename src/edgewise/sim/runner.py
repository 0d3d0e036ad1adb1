"""A runner that computes nothing and takes time: the virtual clock moves by what a step of this work would cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.base import Clock, Incompatible, SeqId
from edgewise.decode.api import Insider
from edgewise.engine.api import StepCost, Work
from edgewise.kernels.api import Array, Floats
from edgewise.sim.memory import START, follow


class CostRunner:
    """Tokens follow from the chained hash that the cache's slots hold, so equal texts go on equally wherever they are.

    kv: a cache over SlotMemory. vocab: small, because the logits are one row of zeros and never looked at."""

    def __init__(self, kv: Any, cost: StepCost, clock: Clock, vocab: int = 256) -> None:
        self.kv, self.cost, self.clock, self.vocab = kv, cost, clock, vocab
        self.busy_s = 0.0
        self._pool: list[int] = kv._pools[0]
        self._peaks: list[int] = []
        self._logits = np.zeros((1, vocab), np.float32)

    def step(self, work: Sequence[Work]) -> Floats:
        size, pool = self.kv.page_tokens, self._pool
        prefill = decode = context = 0
        peaks: list[int] = []
        seqs: list[Any] = []
        for seq, tokens, past, wanted, *_ in work:
            held = self.kv.pages.holdings[seq]
            count = len(tokens)
            assert held.length == past, (seq, held.length, past)
            assert past + count <= held.writable, (seq, past + count, held.writable)
            table = held.view
            at = past - 1
            value = pool[int(table[at // size]) * size + at % size] if past else START
            for token in tokens:
                at += 1
                value = follow(value, token)
                pool[int(table[at // size]) * size + at % size] = value
                if at >= past + count - wanted:
                    peaks.append(value % self.vocab)
            if count == wanted:
                decode += 1
            else:
                prefill += count
            context += past + count
            seqs.append((seq, past + count))
        prefill, decode, context = self.charged(work, prefill, decode, context)
        seconds = self.cost.seconds(prefill, decode, context)
        self.busy_s += seconds
        self.clock.sleep(seconds)
        for seq, length in seqs:
            self.kv.pages.commit(seq, length)
        self._peaks = peaks
        if len(peaks) > len(self._logits):
            self._logits = np.zeros((len(peaks), self.vocab), np.float32)
        return self._logits[: len(peaks)]

    def charged(self, work: Sequence[Work], prefill: int, decode: int, context: int) -> tuple[int, int, int]:
        return prefill, decode, context

    def peaks(self) -> Sequence[int]:
        return self._peaks

    def left(self) -> Mapping[SeqId, Sequence[int]]:
        return {}

    def open_to(self, insider: Insider | None) -> None:
        raise Incompatible("A simulated pass has no hidden states, so nobody can draft from them. Choose another one.")

    def shown(self) -> Array | None:
        return None


class PaddedRunner(CostRunner):
    """Charges what whole batches without ragged kernels compute: every prompt as long as the longest of its batch, and
    every row until the last of the batch is done. For a policy that keeps prompts and decoding apart."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._prompts: dict[int, int] = {}  # of the batch, while it grows
        self._rows = 0  # of the batch, while it decodes

    def charged(self, work: Sequence[Work], prefill: int, decode: int, context: int) -> tuple[int, int, int]:
        if prefill:
            self._rows = 0
            for piece in work:
                self._prompts[piece.seq] = piece.past + len(piece.tokens)
            return prefill, decode, context
        if self._prompts:
            self._rows = len(self._prompts)
            prefill = self._rows * max(self._prompts.values()) - sum(self._prompts.values())
            self._prompts.clear()
        longest = max(piece.past + len(piece.tokens) for piece in work)
        return prefill, max(self._rows, decode), max(self._rows, decode) * longest
