"""Streams of the newest token pass through the top layers once more and say the tokens after the next one.

Stream j begins as the token's state below the top layers plus a learnt vector, j places farther, plus, where the file
has it, a matrix of low rank of the next token's embedding, which that state was not told of; in each top layer it
attends to the text and to the streams before it, and the target's own head reads from it. Ranks of the streams' best
tokens make a tree, as with heads. Nothing of the target is changed (the paper's lossless mode), and nothing
the streams leave behind is kept. The paper gives streams to every row of the verifying pass, and keeps those of the
row that was accepted last. Here they are computed for that row alone, in a short pass of their own after it: the same
drafts for the price of reading the top layers twice, since on a CPU rows are what a pass of many nodes is paid in.
With prune=CHANCE an adapter of low rank reads, in the verifying pass, the state below the top layers of each node, says
early what comes next, and nodes that are less likely than that go, with all below them, before the top layers and the
head are computed (the paper's tree pruning).

Paper:  Bhendawade et al., Speculative Streaming, 2024, arXiv:2402.11131
Exact.
Needs:  REWIND, TREE; streams trained for this model (`edgewise train streaming`)
Cost:   the top layers and the head read once more a drafted step; a listened-to pass is not replayed
Status: trial
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, Incompatible, OutOfRoom, Tap
from edgewise.decode.api import Draft, SeqView, Target
from edgewise.decode.choices import DYNAMIC, calibrated, sureness
from edgewise.decode.drafting_weights import beside, read_tensors
from edgewise.decode.guessing import AUTO, Guessed, Listens, guesses_of, node_count
from edgewise.kernels.api import Array, Floats, SeqRows
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Model

TOKEN = ("token_down", "token_up")


class StreamingSpeculator(Listens):
    """streams: file; default: the one beside the model. tree: "dynamic" ("searched" where the file does not tell how
    sure streams are when they are right), "searched", "cartesian", widths as 3x2x1, or a JSON file. nodes: of a
    dynamic, searched or Cartesian tree; auto: as many of the first two as pay, measured all the time, or none.
    depth: streams in use at most. prune: the least chance of a node, said early, that goes on to the top layers; 0: all
    do. shuffle: a control; with a seed the streams speak of other tokens."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.TREE})
    taps: ClassVar[frozenset[Tap]] = frozenset({Tap.HIDDEN})

    def __init__(
        self, streams: str = "", tree: str = DYNAMIC, nodes: int | str = AUTO, depth: int = 16, prune: float = 0.0,
        shuffle: int = 0,
    ) -> None:
        node_count("streaming", nodes, depth)
        if not (isinstance(prune, int | float) and 0 <= prune < 1):
            raise BadInput(f"speculator 'streaming': prune={prune!r} must be a chance, from 0 to below 1.")
        self.least, self.prunes = float(prune), prune > 0
        self.nodes_seen = self.nodes_pruned = 0  # of all drafts
        self.streams, self.tree, self.nodes, self.depth = str(streams), str(tree), nodes, depth
        self.shuffle = shuffle
        self.layer = -1

    def prepare(self, target: Target) -> int:
        spec, name = target.spec, target.header.name
        path = Path(self.streams) if self.streams else beside(target.header, "streaming")
        if not path.is_file():
            raise BadInput(
                f"{name} has no streams: {path} is not there. Train some with `edgewise train streaming MODEL`, or "
                "name a file: streaming:streams=FILE."
            )
        metadata, tensors = read_tensors(path)
        embed, top = tensors.get("embed"), metadata.get("layers", "")
        if embed is None or embed.ndim != 2 or not len(embed) or not top.isdecimal():
            raise BadInput(f"{path} has no streams: the tensor 'embed' or the number of layers is missing.")
        shapes: dict[str, tuple[int, ...]] = {"embed": (len(embed), spec.dim)}
        if "down" in tensors and "up" in tensors:
            rank = tensors["down"].shape[1] if tensors["down"].ndim == 3 else -1
            shapes |= {"down": (len(embed), rank, spec.dim), "up": (len(embed), spec.dim, rank)}
        if any(part in tensors for part in TOKEN):
            missing = [part for part in TOKEN if part not in tensors]
            if missing:
                raise BadInput(f"{path}: the tokens' matrix lacks '{missing[0]}'. Train streams anew.")
            known = len(tensors[TOKEN[0]])
            shapes |= {TOKEN[0]: (known, spec.dim), TOKEN[1]: (spec.dim, known)}
        if self.prunes:
            early = tensors.get("early_down")
            if early is None or early.ndim != 2 or "early_up" not in tensors:
                raise BadInput(
                    f"{path} cannot prune: the early exit is missing. Train streams anew, or leave out prune=."
                )
            shapes |= {"early_down": (len(early), spec.dim), "early_up": (spec.dim, len(early))}
        for part, shape in shapes.items():
            if tensors[part].shape != shape:
                raise Incompatible(
                    f"{path}: '{part}' has the shape {tensors[part].shape}, but {name} needs {shape}: the streams were "
                    "trained for another model. Train streams for this one."
                )
        if not 1 <= int(top) < spec.layers:
            raise Incompatible(f"{path} is for the top {top} layers, but {name} has {spec.layers}. It is for another.")
        self.layer = spec.layers - int(top) - 1
        accuracy = calibrated(path, tensors.get("accuracy"), len(embed))[: self.depth]
        self._guesses = guesses_of(
            "streaming", self.tree, self.nodes, accuracy, sureness(path, tensors.get("chances"), len(embed))
        )
        use = self._guesses.depth
        self._embed = embed[:use]
        low = (np.ascontiguousarray(tensors[part][:use].swapaxes(1, 2)) for part in ("down", "up"))
        self._low = tuple(low) if "down" in shapes else None  # (streams, dim, rank), (streams, rank, dim)
        of_token = (np.ascontiguousarray(tensors[part].T) for part in TOKEN)
        self._token = tuple(of_token) if TOKEN[0] in shapes else None  # (dim, rank), (rank, dim)
        self._early = (tensors["early_down"].T, tensors["early_up"].T) if self.prunes else None
        self._device, self._context = target.device, target.context
        self._mixed = np.random.default_rng(self.shuffle).permutation(spec.vocab) if self.shuffle else None
        return sum(values.nbytes for values in tensors.values())

    def attach(self, model: Model, kv: KVCache) -> None:
        self._model, self._kv = model, kv
        self._top = range(self.layer + 1, model.spec.layers)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        return self._guesses.drafts(seqs, budget, self._best, self._reserve)

    def prune(self, drafts: Sequence[Draft], states: Array) -> Sequence[Sequence[int]]:
        roots = np.cumsum([0] + [1 + len(draft.tokens) for draft in drafts])
        asked = [sorted({-1, *draft.parents}) for draft in drafts]  # who has children, and so is asked for them
        rows = np.concatenate([root + 1 + np.array(some) for root, some in zip(roots[:-1], asked, strict=True)])
        x = self._device.download(self._device.rows(states, rows.astype(np.int32)))
        assert self._early is not None  # else nobody asks
        down, up = self._early
        early = self._model.states(self._device.upload(np.ascontiguousarray(x + x @ down @ up, np.float32)))
        logits = self._device.download(self._model.logits(early))
        least = np.log(self.least) + np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        kept, first = [], 0
        for draft, some in zip(drafts, asked, strict=True):
            row = {node: first + at for at, node in enumerate(some)}
            first += len(some)
            alive = {-1}
            for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
                if parent in alive and not logits[row[parent], token] < least[row[parent]]:
                    alive.add(node)
            kept.append(sorted(alive - {-1}))
            self.nodes_seen += len(draft.tokens)
            self.nodes_pruned += len(draft.tokens) - len(kept[-1])
        return kept

    def _reserve(self, view: SeqView) -> bool:
        """Room for its streams behind the text, where the tokens of the next pass will be."""
        past, count = self._kv.length(view.seq), len(self._embed)
        if past != len(view.tokens) - 1 or past + count > self._context:
            return False
        try:
            self._kv.reserve(view.seq, past + count)
        except OutOfRoom:
            return False
        return True

    def _best(self, seqs: Sequence[SeqView], states: Floats, count: int) -> Guessed:
        """The first `count` streams' best tokens, and how sure they are of them: (sequences, count, ranks)."""
        device, model, kv = self._device, self._model, self._kv
        each = len(seqs)
        x = states[:, None] + self._embed[:count]
        if self._token is not None:
            down, up = self._token
            x += (self.newest(seqs) @ down @ up)[:, None]
        if self._low is not None:
            down, up = self._low
            x = x + (states @ down[:count] @ up[:count]).swapaxes(0, 1)
        rows = [SeqRows(view.seq, i * count, count, len(view.tokens) - 1) for i, view in enumerate(seqs)]
        places = np.concatenate([np.arange(row.past, row.past + count, dtype=np.int32) for row in rows])
        every = np.arange(each * count, dtype=np.int32)
        batch = Batch(np.zeros_like(every), places, tuple(rows), every, kv, kv.begin(rows))
        y = model.blocks(device.upload(x.reshape(each * count, -1)), batch, self._top)
        ranked = self._guesses.ranked(device.download(model.head(y, batch)))
        found, sure = (part.reshape(each, count, -1) for part in ranked)
        return (found if self._mixed is None else self._mixed[found]), sure
