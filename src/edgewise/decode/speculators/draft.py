"""A second, smaller model of the same vocabulary drafts, with a KV cache of its own.

All sequences that decode are drafted for in the same passes. The cache follows the texts: what was refused is rewound,
what is new is computed in chunks, and a long prompt is caught up with before anything is drafted. Where nothing was
asked for odds the draft is the model's own greedy continuation, and ends where its probability falls below `least`.
With `width` above 1 each token has siblings, the next likeliest (or next drawn) ones, which cost rows but no passes.

Paper:  Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023, arXiv:2211.17192;
        Chen et al., Accelerating LLM Decoding with Speculative Sampling, 2023, arXiv:2302.01318
Exact.
Needs:  REWIND; a model with the target's vocabulary
Cost:   one pass of the draft model a drafted token; its weights, and KV for `memory_mb` at most
Status: kept
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Cap, Incompatible, OutOfRoom, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.ranking import ranked
from edgewise.decode.samplers.standard import distribution, draw, uniform
from edgewise.kernels.api import Floats, SeqRows
from edgewise.kv import CACHES
from edgewise.kv.types import token_bytes
from edgewise.models import begin_model, read_spec
from edgewise.models.api import Batch, Model
from edgewise.models.passes import Pass
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Header

PAGE = 16
CHUNK = 256  # rows of one pass while it catches up with a text
STREAM = 1 << 20  # of the numbers that drafts are drawn with; verifiers use the first ones
MIB = 1 << 20


class DraftModelSpeculator:
    """model: folder or GGUF file. depth: passes at most. width: tokens of each. least: of the product of probabilities,
    greedy drafts only. memory_mb: for weights and KV together; 0: KV for every sequence at full length. dtype: of the
    KV."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, model: str = "", depth: int = 4, width: int = 1, least: float = 0.0, memory_mb: float = 0.0,
        dtype: str = "f16",
    ) -> None:
        if not model:
            raise BadInput("speculator 'draft' needs a model: draft:model=PATH, one with the target's vocabulary.")
        if not (isinstance(width, int) and width >= 1):
            raise BadInput(f"speculator 'draft': width={width!r} must be an integer of at least 1.")
        if not (isinstance(depth, int) and depth >= 1 and 0 <= least < 1 and memory_mb >= 0):
            raise BadInput(f"speculator 'draft': depth={depth!r}, least={least!r}, memory_mb={memory_mb!r}?.")
        self.model, self.depth, self.width, self.least = str(model), depth, width, least
        self.memory_mb, self.dtype = memory_mb, dtype
        self._odds = False
        self._device: Any = None
        self._cached: dict[SeqId, list[int]] = {}  # what the cache holds of each, least recently used first
        self._sure: dict[SeqId, int] = {}  # how many of these are the text's, as far as was looked
        self._kv: Any = None
        self._pass: Any = None

    def prepare(self, target: Target) -> int:
        checkpoint = open_checkpoint(self.model)
        header = checkpoint.header()
        same_vocabulary(header, read_spec(header).vocab, target)
        spec = read_spec(header, min(target.context, read_spec(header).context))
        weights = sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names())
        each = token_bytes(spec.layers, spec.kv_heads, spec.head_dim, self.dtype) * PAGE
        self._context = min(target.context, spec.context)
        pages = -(-self._context // PAGE) * target.sequences
        if self.memory_mb:
            room = int(self.memory_mb * MIB - weights) // each
            if room < 2:
                raise OutOfRoom(
                    f"The draft model {header.name} takes {weights / MIB:.1f} MiB for its weights and {each / MIB:.2f} "
                    f"MiB for {PAGE} tokens, but memory_mb={self.memory_mb:g}. Give it more, or use a smaller one."
                )
            pages = min(pages, room)
        model, loading = begin_model(checkpoint, target.device, context=self._context)
        loading.wait()
        self.use(model, pages, target)
        return weights + pages * each

    def use(self, model: Model, pages: int, target: Target) -> None:
        """The model that drafts, on the target's device, and the pages of its cache."""
        spec, device = model.spec, target.device
        self._odds, self._device, self._vocab = target.odds, device, target.spec.vocab
        self._context = min(target.context, spec.context)
        self._kv = CACHES.build(
            "paged", device=device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim, pages=pages,
            page_tokens=PAGE, dtype=self.dtype, reuse=False,
        )  # fmt: skip
        self._pass = Pass(model, device)

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        pass

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        many = [0] * len(seqs)
        for i in range(len(seqs)):
            room = min(seqs[i].most, budget) // self.width
            many[i] = min(self.depth, room, self._context - len(seqs[i].tokens))
            budget -= max(0, many[i]) * self.width
        tokens: list[list[Sequence[int]]] = [[] for _ in seqs]  # of each depth; the next one follows the first of them
        odds: list[list[npt.NDArray[np.float64]]] = [[] for _ in seqs]
        chances = [1.0] * len(seqs)
        live = [i for i in range(len(seqs)) if many[i] > 0]
        work = {i: news for i in live if (news := self._catch_up(seqs[i], [seqs[j].seq for j in live])) is not None}
        while work:
            rows = self._compute([(seqs[i].seq, news) for i, news in work.items()])
            following: dict[int, list[int]] = {}
            for i, row in zip(work, rows, strict=True):
                chosen, chance = self._choose(seqs[i], row[: self._vocab], len(tokens[i]), odds[i])
                chances[i] *= chance
                if chances[i] < self.least:
                    continue
                tokens[i].append(chosen)
                if len(tokens[i]) < many[i] and self._reserve(seqs[i].seq, 1, list(map(_seq, seqs))):
                    following[i] = [chosen[0]]
            work = following
        return [_comb(levels, odd) for levels, odd in zip(tokens, odds, strict=True)]

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        pass  # the next call sees what became of the drafts by the tokens themselves

    def end(self, seq: SeqId) -> None:
        if self._cached.pop(seq, None) is not None:
            self._sure.pop(seq, None)
            self._kv.close(seq)

    def _choose(
        self, view: SeqView, row: Floats, at: int, odds: list[npt.NDArray[np.float64]]
    ) -> tuple[list[int], float]:
        """`width` tokens, the best or first drawn one first, and its probability where somebody looks at that."""
        if not (self._odds and view.params.temperature > 0):
            best = ranked(row, self.width).tolist() if self.width > 1 else [int(row.argmax())]
            return best, float(1 / np.exp(row - row[best[0]]).sum()) if self.least else 1.0
        index, weight = distribution(row, view.params)
        odd = np.zeros(self._vocab)
        odd[index] = weight / weight.sum()
        odds.append(odd)
        drawn: list[int] = []
        left, position = odd.copy(), len(view.tokens) + at
        while len(drawn) < self.width and left.any():
            drawn.append(draw(left, uniform(view.seed, position, STREAM + len(drawn))))
            left[drawn[-1]] = 0.0
        return drawn, 1.0

    def _catch_up(self, view: SeqView, others: Sequence[SeqId]) -> list[int] | None:
        """The tokens of the next pass; None: there is no room, or too much is missing, of which a chunk is computed."""
        seq, tokens = view.seq, view.tokens
        if seq not in self._cached:
            self._kv.open(seq, ())
            self._cached[seq] = []
        held = self._cached[seq] = self._cached.pop(seq)  # the most recently used
        same, end = self._sure.get(seq, 0), min(len(held), len(tokens) - 1)
        while same < end and held[same] == tokens[same]:
            same += 1
        self._sure[seq] = same
        if same < len(held):
            del held[same:]
            self._kv.rewind(seq, same)
        news = list(tokens[same:])
        if len(news) > CHUNK:
            if self._reserve(seq, CHUNK, others):
                self._compute([(seq, news[:CHUNK])])
            return None
        return news if self._reserve(seq, len(news), others) else None

    def _reserve(self, seq: SeqId, count: int, keep: Sequence[SeqId]) -> bool:
        """Room for so many more tokens, taken from sequences that are not in this step, longest unused first."""
        while True:
            try:
                self._kv.reserve(seq, len(self._cached[seq]) + count)
                return True
            except OutOfRoom:
                victim = next((other for other in self._cached if other != seq and other not in keep), None)
                if victim is None:
                    return False
                self.end(victim)

    def _compute(self, work: Sequence[tuple[SeqId, list[int]]]) -> Floats:
        """Logits after the last token of each: (len(work), vocab), valid until the next pass."""
        seqs: list[SeqRows] = []
        ids: list[int] = []
        places: list[int] = []
        last: list[int] = []
        for seq, tokens in work:
            held = self._cached[seq]
            seqs.append(SeqRows(seq, len(ids), len(tokens), len(held)))
            places += range(len(held), len(held) + len(tokens))
            ids += tokens
            held += tokens
            last.append(len(ids) - 1)
        batch = Batch(
            np.array(ids, np.int32), np.array(places, np.int32), tuple(seqs), np.array(last, np.int32), self._kv,
            self._kv.begin(seqs),
        )  # fmt: skip
        self._logits = self._pass.run(batch)
        self._kv.commit(seqs)
        logits: Floats = self._device.download(self._logits)
        return logits


def _comb(levels: Sequence[Sequence[int]], odds: Sequence[npt.NDArray[np.float64]]) -> Draft:
    """A chain of the first tokens, with the others as leaves beside it."""
    tokens: list[int] = []
    parents: list[int] = []
    each: list[npt.NDArray[np.float64]] = []
    parent = -1
    for at, level in enumerate(levels):
        tokens += level
        parents += [parent] * len(level)
        each += [odds[at]] * len(level) if odds else []
        parent = len(tokens) - len(level)
    return Draft(tuple(tokens), tuple(parents), tuple(each))


def _seq(view: SeqView) -> SeqId:
    return view.seq


def same_vocabulary(header: Header, vocab: int, target: Target) -> None:
    """Raises Incompatible unless every token id means the same to both models."""
    ours, theirs = target.pieces(target.header), target.pieces(header)
    who = f"The draft model {header.name} and {target.header.name}"
    if ours is None or theirs is None:  # nothing to compare but sizes
        if vocab != target.spec.vocab:
            raise Incompatible(f"{who} have vocabularies of {vocab} and {target.spec.vocab} tokens. Use a pair.")
        return
    for token, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our != their:
            raise Incompatible(
                f"{who} have different vocabularies: token {token} is {their!r} in the one, {our!r} in the other. "
                "Use a draft model of the same family."
            )
    if len(ours) != len(theirs):
        raise Incompatible(
            f"{who} have different vocabularies: {len(theirs)} and {len(ours)} tokens. Use a draft model of the same "
            "family."
        )
