"""One pass of a language model over the new tokens of several sequences, laid end to end.

Paper:  Yu et al., Orca (selective batching), OSDI 2022
Exact.
Needs:  nothing
Cost:   a few microseconds of Python a step beside the model's own calls
Status: kept
"""

import itertools
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np

from edgewise.base import SeqId, Tap
from edgewise.decode.api import Draft, Insider, Pruner
from edgewise.engine.api import Work
from edgewise.kernels.api import Array, Device, Floats, SeqRows
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Listener, Model
from edgewise.models.passes import Pass

Copy = tuple[int, SeqId, int]  # a row whose key and value go to another sequence too, at a position


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
        self._left: dict[SeqId, Sequence[int]] = {}  # of the last step, where nodes of drafts were left out
        self._logits: Array = None  # keeps the device's array alive while the caller looks at it

    def step(self, work: Sequence[Work]) -> Floats:
        """New tokens in, logits of the wanted rows out: (sum of wanted, vocab), valid until the next step."""
        if self._insider is not None:
            self._look()
        flat: list[int] = []
        place: list[int] = []
        wanted: list[int] = []
        seqs: list[SeqRows] = []
        copies: list[Copy] = []
        drafted: list[tuple[Work, int]] = []  # and the row of the last real token
        for piece in work:
            seq, tokens, past, last = piece[:4]
            if last > 1 and seq >= 0:
                drafted.append((piece, len(flat) + len(tokens) - last))
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
        self._left, self._outputs = {}, outputs
        insider = self._insider
        if drafted and self._listen is not None and insider is not None and insider.prunes:
            cut = partial(self._cut, cast(Pruner, insider), batch, copies, drafted)
            self._logits = self.forward.run(batch, insider.layer, cut)
        else:
            self._logits = self.forward.run(batch)
        self.kv.commit(seqs)
        return self._nothing if self._logits is None else self.device.download(self._logits)

    def peaks(self) -> Sequence[int]:
        """Of each row of the last step's logits the first index of its largest value; -1: not all are finite."""
        return () if self._logits is None else self.device.peaks(self._logits)

    def left(self) -> Mapping[SeqId, Sequence[int]]:
        return self._left

    def _cut(
        self, pruner: Pruner, batch: Batch, copies: Sequence[Copy], drafted: Sequence[tuple[Work, int]], x: Array
    ) -> tuple[Array, Batch]:
        """Leaves out the nodes that the pruner gives up now that it sees this far. The others stay in their branches,
        so that their keys lie where they would lie anyway."""
        drafts = [drafted_of(piece) for piece, _ in drafted]
        shown = [np.arange(root, root + piece.wanted, dtype=np.int32) for piece, root in drafted]
        kept = pruner.prune(drafts, self.device.rows(x, np.concatenate(shown)))
        alive = np.ones(len(batch.ids), bool)
        for (piece, root), draft, nodes in zip(drafted, drafts, kept, strict=True):
            if len(nodes) < len(draft.tokens):
                self._left[piece.seq] = nodes
                alive[root + 1 : root + piece.wanted] = False
                alive[[root + 1 + node for node in nodes]] = True
        if not self._left:
            return x, batch
        rows = np.flatnonzero(alive).astype(np.int32)
        place = np.cumsum(alive) - 1
        seqs = []
        for seq, start, count, past in batch.seqs:
            if some := int(alive[start : start + count].sum()):  # of a chain its beginning
                seqs.append(SeqRows(seq, int(place[start]), some, past))
        also = [(int(place[row]), seq, position) for row, seq, position in copies if alive[row]]
        plan = self.kv.begin(seqs, also)
        outputs = place[batch.outputs[alive[batch.outputs]]].astype(np.int32)
        x = self._hidden = self.device.rows(x, rows)
        self._outputs = outputs
        return x, Batch(batch.ids[rows], batch.positions[rows], tuple(seqs), outputs, self.kv, plan, batch.listen)

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


def drafted_of(piece: Work) -> Draft:
    """The draft whose rows these are."""
    tokens = tuple(piece.tokens[len(piece.tokens) - piece.wanted + 1 :])
    return Draft(tokens, tuple(piece.parents)) if piece.branches else Draft.chain(tokens)


def branched(piece: Work, start: int) -> tuple[list[SeqRows], list[Copy], list[int]]:
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
