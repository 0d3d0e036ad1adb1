"""A second, smaller model of the same vocabulary drafts, with a KV cache of its own.

All sequences that decode are drafted for in the same passes. The cache follows the texts: what was refused is rewound,
what is new is computed in chunks, and a long prompt is caught up with before anything is drafted. Where nothing was
asked for odds the draft is the model's own greedy continuation, and ends where its probability falls below `least`.
With `width` above 1 each token has siblings, the next likeliest (or next drawn) ones, which cost rows but no passes,
for as long as that gives more tokens a second than a chain.
Of a text longer than `window` it sees the last tokens only: when the window is full, it begins anew with half of it.

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
from edgewise.decode.curve import Rival
from edgewise.decode.drafting import DraftModel, load_draft
from edgewise.decode.ranking import ranked
from edgewise.decode.samplers.standard import distribution, draw, uniform
from edgewise.embedded import embedded_draft
from edgewise.kernels.api import Floats

CHUNK = 256  # tokens of a text that it catches up with in one step
STREAM = 1 << 20  # of the numbers that drafts are drawn with; verifiers use the first ones


class DraftModelSpeculator:
    """model: folder or GGUF file; none: the package's own, for its embedded model. depth: passes at most. width: tokens
    of each. least: of the product of probabilities, greedy drafts only. memory_mb: for weights and KV together; 0: KV
    for every sequence at full length. dtype: of the KV. window: tokens of a text that it sees; 0: as many as the
    models can. chunk: rows of a pass."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, model: str = "", depth: int = 4, width: int = 1, least: float = 0.0, memory_mb: float = 0.0,
        dtype: str = "f16", window: int = 0, chunk: int = CHUNK,
    ) -> None:
        if not (isinstance(width, int) and width >= 1):
            raise BadInput(f"speculator 'draft': width={width!r} must be an integer of at least 1.")
        if not (isinstance(depth, int) and depth >= 1 and 0 <= least < 1 and memory_mb >= 0):
            raise BadInput(f"speculator 'draft': depth={depth!r}, least={least!r}, memory_mb={memory_mb!r}?.")
        if not (isinstance(window, int) and isinstance(chunk, int) and chunk >= 1) or 0 != window < 2 * depth + 2:
            raise BadInput(f"speculator 'draft': window={window!r} must be 0 or hold two drafts; chunk={chunk!r}?")
        self.model, self.depth, self.width, self.least = str(model), depth, width, least
        self.memory_mb, self.dtype, self.window, self.chunk = memory_mb, dtype, window, chunk
        self._odds, self._wide = False, 1
        self._trees = Rival() if width > 1 else None  # against chains
        self._cached: dict[SeqId, list[int]] = {}  # what the cache holds of each, least recently used first
        self._sure: dict[SeqId, int] = {}  # how many of these are the text's, as far as was looked
        self._from: dict[SeqId, int] = {}  # where in the text they begin
        self._drafter: Any = None
        self._kv: Any = None

    def prepare(self, target: Target) -> int:
        seen = min(self.window or target.context, target.context)
        model = self.model or embedded_draft()
        try:
            drafter, held = load_draft(str(model), target, seen=seen, memory_mb=self.memory_mb, dtype=self.dtype)
        except Incompatible as error:
            if self.model:
                raise
            raise BadInput(
                "speculator 'draft' needs a model: draft:model=PATH, one with the target's vocabulary. The package's "
                "own drafts for the embedded model and its family."
            ) from error
        self.use(drafter, target)
        return held

    def use(self, drafter: DraftModel, target: Target) -> None:
        """The model that drafts, on the target's device."""
        self._drafter, self._kv = drafter, drafter.kv
        self._odds, self._vocab, self._context = target.odds, target.spec.vocab, target.context
        self._seen = min(self.window or target.context, target.context, drafter.spec.context)

    def kv_bytes(self) -> int:
        """What its cache really took so far."""
        return int(self._drafter.kv_bytes())

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        pass

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        many = [0] * len(seqs)
        self._wide = self.width if self._trees is not None and self._trees.first else 1
        for i in range(len(seqs)):
            room = min(seqs[i].most, budget) // self._wide
            many[i] = min(self.depth, room, self._context - len(seqs[i].tokens))
            budget -= max(0, many[i]) * self._wide
        tokens: list[list[Sequence[int]]] = [[] for _ in seqs]  # of each depth; the next one follows the first of them
        odds: list[list[npt.NDArray[np.float64]]] = [[] for _ in seqs]
        chances = [1.0] * len(seqs)
        live = [i for i in range(len(seqs)) if many[i] > 0]
        work: dict[int, list[int]] = {}
        rows_left = self.chunk
        for i in live:
            news = self._catch_up(seqs[i], [seqs[j].seq for j in live], rows_left)
            if news is not None:
                work[i] = news
                rows_left -= len(news)
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
        if self._trees is not None:  # what became of drafts, the next call sees by the tokens themselves
            self._trees.heard(outcomes, spent)

    def end(self, seq: SeqId) -> None:
        held = self._cached.pop(seq, None)
        if held is not None:
            self._kv.remember(seq, held)  # the next turn of a chat begins with it
            self._sure.pop(seq, None)
            self._from.pop(seq, None)
            self._kv.close(seq)

    def _choose(
        self, view: SeqView, row: Floats, at: int, odds: list[npt.NDArray[np.float64]]
    ) -> tuple[list[int], float]:
        """`width` tokens, the best or first drawn one first, and its probability where somebody looks at that."""
        if not (self._odds and view.params.temperature > 0):
            best = ranked(row, self._wide).tolist() if self._wide > 1 else [int(row.argmax())]
            return best, float(1 / np.exp(row - row[best[0]]).sum()) if self.least else 1.0
        index, weight = distribution(row, view.params)
        odd = np.zeros(self._vocab)
        odd[index] = weight / weight.sum()
        odds.append(odd)
        drawn: list[int] = []
        left, position = odd.copy(), len(view.tokens) + at
        while len(drawn) < self._wide and left.any():
            drawn.append(draw(left, uniform(view.seed, position, STREAM + len(drawn))))
            left[drawn[-1]] = 0.0
        return drawn, 1.0

    def _catch_up(self, view: SeqView, others: Sequence[SeqId], rows_left: int) -> list[int] | None:
        """The tokens of the next pass; None: there is no room, or too much is missing, of which some is computed."""
        seq, tokens = view.seq, view.tokens
        if seq not in self._cached:
            begin = 0 if len(tokens) + self.depth <= self._seen else len(tokens) - self._seen // 2
            known = self._kv.open(seq, tokens[begin:])
            self._cached[seq], self._from[seq], self._sure[seq] = list(tokens[begin : begin + known]), begin, known
        held = self._cached[seq] = self._cached.pop(seq)  # the most recently used
        begin = self._from.get(seq, 0)
        if len(tokens) + self.depth - begin > self._seen:  # the window is full
            if self._seen < 2 * self.depth + 2:
                return None
            begin = self._from[seq] = len(tokens) - self._seen // 2
            self._sure[seq] = same = 0
        else:
            same, end = self._sure.get(seq, 0), min(len(held), len(tokens) - begin - 1)
            while same < end and held[same] == tokens[begin + same]:
                same += 1
            self._sure[seq] = same
        if same < len(held):
            del held[same:]
            self._kv.rewind(seq, same)
        news = list(tokens[begin + same :])
        if len(news) > rows_left:
            rows = min(CHUNK, len(news) - 1)  # the last one is left for the pass that drafts
            for at in range(0, rows, self.chunk):
                some = news[at : min(at + self.chunk, rows)]
                if not self._reserve(seq, len(some), others):
                    break
                self._compute([(seq, some)])
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
        logits: Floats = self._drafter.run([(seq, tokens, len(self._cached[seq])) for seq, tokens in work])
        for seq, tokens in work:
            self._cached[seq] += tokens
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
