"""One pass of a language model over the new tokens of several sequences, laid end to end.

Paper:  Yu et al., Orca (selective batching), OSDI 2022
Exact.
Needs:  nothing
Cost:   a few microseconds of Python a step beside the model's own calls
Status: kept
"""

import itertools
from collections.abc import Generator, Sequence
from functools import partial

import numpy as np

from edgewise.base import SeqId, Tap
from edgewise.decode.api import Insider
from edgewise.engine.api import Work
from edgewise.kernels.api import Array, Device, Floats, SeqRows
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Listener, Model
from edgewise.models.passes import Pass


class TextRunner:
    """model: embed, blocks, head. kv: where its keys and values live. device: the arrays' owner."""

    def __init__(self, model: Model, kv: KVCache, device: Device) -> None:
        self.model = model
        self.kv = kv
        self.device = device
        self.forward = Pass(model, device)
        self._nothing = np.empty((0, model.spec.vocab), np.float32)
        self._scratch = itertools.count(-1, -1)  # sequences of `score`; requests count up from 0
        self._insider: Insider | None = None
        self._listen: Listener | None = None  # of this step
        self._hidden: Array = None  # of all rows of the last step, after the layer that somebody listens to
        self._logits: Array = None  # keeps the device's array alive while the caller looks at it

    def step(self, work: Sequence[Work]) -> Floats:
        """New tokens in, logits of the wanted rows out: (sum of wanted, vocab), valid until the next step."""
        if self._insider is not None:
            self._look()
        flat: list[int] = []
        place: list[int] = []
        wanted: list[int] = []
        seqs: list[SeqRows] = []
        copies: list[tuple[int, SeqId, int]] = []
        for piece in work:
            seq, tokens, past, last = piece[:4]
            start, count = len(flat), len(tokens)
            flat += tokens
            wanted += range(start + count - last, start + count)
            if piece.branches:
                rows, also, places = branched(piece, start)
                seqs += rows
                copies += also
                place += places
                continue
            seqs.append(SeqRows(seq, start, count, past))
            place += range(past, past + count)
        ids, positions, outputs = np.array(flat, np.int32), np.array(place, np.int32), np.array(wanted, np.int32)
        batch = Batch(ids, positions, tuple(seqs), outputs, self.kv, self.kv.begin(seqs, copies), self._listen)
        self._logits, self._outputs = self.forward.run(batch), outputs
        self.kv.commit(seqs)
        return self._nothing if self._logits is None else self.device.download(self._logits)

    def peaks(self) -> Sequence[int]:
        """Of each row of the last step's logits the first index of its largest value; -1: not all are finite."""
        return () if self._logits is None else self.device.peaks(self._logits)

    def open_to(self, insider: Insider | None) -> None:
        self._insider = insider
        self._look()
        if insider is not None:
            insider.attach(self.model, self.kv)

    def _look(self) -> None:
        """Shows the next step to an insider who wants to see it."""
        insider = self._insider
        taps = insider.taps if insider is not None and insider.listening else frozenset()
        self.forward.keep_states(Tap.STATES in taps)
        self._listen = partial(self._heard, insider.layer) if insider is not None and Tap.HIDDEN in taps else None

    def _heard(self, wanted: int, tap: Tap, layer: int, value: Array) -> None:
        if tap is Tap.HIDDEN and layer == wanted:
            self._hidden = value

    def shown(self) -> Array | None:
        if self._listen is None:
            return self.forward.states
        return None if self._logits is None else self.device.rows(self._hidden, self._outputs)

    def states(self, tokens: Sequence[int], chunk: int) -> Generator[Floats, None, None]:
        """What the model holds of every token after its last norm, from a sequence of its own: (≤ chunk, dim)."""
        seq = SeqId(next(self._scratch))
        self.kv.open(seq, ())
        model = self.model
        try:
            for past in range(0, len(tokens), chunk):
                count = min(chunk, len(tokens) - past)
                self.kv.reserve(seq, past + count)
                rows = [SeqRows(seq, 0, count, past)]
                ids = np.array(tokens[past : past + count], np.int32)
                places = np.arange(past, past + count, dtype=np.int32)
                batch = Batch(ids, places, tuple(rows), np.empty(0, np.int32), self.kv, self.kv.begin(rows))
                x = model.states(model.blocks(model.embed(batch), batch, range(model.spec.layers)))
                self.kv.commit(rows)
                yield self.device.download(x).copy()
        finally:
            self.kv.close(seq)

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


def branched(piece: Work, start: int) -> tuple[list[SeqRows], list[tuple[int, SeqId, int]], list[int]]:
    """A tree's rows, each in the first branch it belongs to; the others that it belongs to; and all positions."""
    nodes = len(piece.parents)
    root = len(piece.tokens) - nodes
    rows = [SeqRows(piece.seq, start, root, piece.past)]
    places = list(range(piece.past, piece.past + root))
    copies = [(start + i, branch, piece.past + i) for i in range(root) for branch in piece.branches[1:]]
    leaves: list[list[int]] = [[] for _ in range(nodes)]  # below each node: indices of branches
    for leaf, node in enumerate(i for i in range(nodes) if i not in piece.parents):
        while node >= 0:
            leaves[node].append(leaf)
            node = piece.parents[node]
    for node, parent in enumerate(piece.parents):
        row, position = start + root + node, places[root + parent] + 1
        places.append(position)
        first, *others = leaves[node]
        rows.append(SeqRows(piece.branches[first], row, 1, position))
        copies += [(row, piece.branches[leaf], position) for leaf in others]
    return rows, copies, places
