"""Drafts of those that guess several places at once from one state of the target: a tree of ranks, or its beginning.

Which ranks are combined is searched once, or found for each draft from how sure whoever guesses is (`dynamic`)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Spent
from edgewise.decode.choices import (
    DYNAMIC,
    SEARCHED,
    ChoiceTree,
    DynamicTree,
    choose_tree,
    ranked_rows,
    searched,
    surely,
)
from edgewise.decode.curve import Late, best_sizes
from edgewise.decode.pacing import PROBE, SURE, TRIES, Likely, Pace
from edgewise.kernels.api import Device, Floats, Ints
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Model

NOTHING = Draft()
AUTO, MOST, USUAL = "auto", 24, 12  # nodes: of a tree that is cut as measured; where nothing is said of another one
GAIN, PLAIN = 1.05, 64

BELIEVED = 2.0  # looks that a calibration is worth
LATELY = 12.0  # looks at how much a sequence's drafts promise, of which the mean is taken

Guessed = tuple[Any, Floats]  # tokens, and the chances that are given them: (sequences, depth, ranks)
Best = Callable[[Sequence[SeqView], Floats, int], Guessed]


def node_count(who: str, nodes: int | str, depth: int) -> None:
    """Raises BadInput where these settings make no sense."""
    if not (nodes == AUTO or (isinstance(nodes, int) and nodes >= 1)) or not (isinstance(depth, int) and depth >= 1):
        raise BadInput(
            f"speculator '{who}': nodes={nodes!r} must be {AUTO} or an integer, and depth={depth!r} an integer, of at "
            "least 1."
        )


def guesses_of(who: str, tree: str, nodes: int | str, accuracy: Floats, chances: Floats | None) -> "Guesses":
    """accuracy (places, ranks): of guesses on a calibration text; chances (places, ranks, classes of sureness), if they
    are known: without them a dynamic tree is a searched one."""
    if tree == DYNAMIC and chances is not None:
        return DynamicGuesses(nodes, accuracy, chances[: len(accuracy)])
    tree = SEARCHED if tree == DYNAMIC else tree
    count = nodes if isinstance(nodes, int) else MOST if tree == SEARCHED else USUAL
    found = choose_tree(who, tree, count, accuracy)
    return RankGuesses(found, accuracy, paced=nodes == AUTO and tree == SEARCHED)


class Guesses:
    """Of every sequence the state that drafts are made of. depth, width: guesses that are made use of.

    paced: as many nodes as pay, none included."""

    def __init__(self, depth: int, width: int, likely: Likely, paced: bool) -> None:
        self.depth, self.width, self.likely = depth, width, likely
        self.pace = Pace([likely], GAIN, PLAIN) if paced else None
        self._draft_s = Late()
        self._asked = False  # in the last step somebody had to guess
        self._states: dict[SeqId, Floats | None] = {}  # (dim,), of the row that the last token was read from

    @property
    def listening(self) -> bool:
        return self.pace is None or self.pace.listening

    def begin(self, seq: SeqId) -> None:
        self._states[seq] = None
        if self.pace is not None:
            self.pace.begin(seq)

    def end(self, seq: SeqId) -> None:
        self._states.pop(seq, None)
        if self.pace is not None:
            self.pace.end(seq)

    def ready(self, seq: SeqId) -> bool:
        return self._states.get(seq) is not None

    def heard(self, outcomes: Sequence[Accepted], spent: Spent, states: Floats | None) -> None:
        """states: those of Spent, on the host."""
        for outcome in outcomes:
            if outcome.seq in self._states:  # else the text has ended
                self._states[outcome.seq] = None if states is None else states[outcome.state].copy()
        if self.pace is not None:
            if self._asked:
                self._draft_s.saw(spent.draft_s)
            self.pace.heard(outcomes, spent)

    def drafts(
        self, seqs: Sequence[SeqView], budget: int, best: Best, fits: Callable[[SeqView], bool] = lambda view: True
    ) -> list[Draft]:
        """best: of some sequences, their states (sequences, dim) and a depth the guesses. fits: whether a sequence that
        is to be drafted for can be."""
        raise NotImplementedError

    def ranked(self, logits: Floats) -> Guessed:
        """Of rows of logits (rows, vocab) the best tokens (rows, ranks), and how sure they are, if that is made use of.
        """
        best = ranked_rows(logits, self.width)
        return best, np.zeros(best.shape, np.float32)

    def _guess(self, seqs: Sequence[SeqView], live: Sequence[int], depth: int, best: Best) -> Guessed:
        self._asked = True
        states = np.stack([self._states[seqs[i].seq] for i in live])  # type: ignore[misc]
        return best([seqs[i] for i in live], states, depth)

    def _most(self, seqs: Sequence[SeqView]) -> list[int]:
        """Nodes that each sequence could have."""
        whole = len(self.likely.parents)
        return [min(view.most, whole) if self.ready(view.seq) and view.ahead else 0 for view in seqs]

    def _fixed(self, seqs: Sequence[SeqView], budget: int) -> list[int]:
        sizes = []
        for some in self._most(seqs):
            sizes.append(min(some, budget))
            budget -= sizes[-1]
        return sizes


class RankGuesses(Guesses):
    """The same ranks in every draft, or the first of them."""

    def __init__(self, tree: ChoiceTree, accuracy: Floats, paced: bool) -> None:
        given = [float(accuracy[depth, rank]) for depth, rank in zip(tree.depths, tree.ranks, strict=True)]
        super().__init__(tree.depth, tree.width, Likely(tree.parents, given), paced)
        self.tree = tree

    def drafts(
        self, seqs: Sequence[SeqView], budget: int, best: Best, fits: Callable[[SeqView], bool] = lambda view: True
    ) -> list[Draft]:
        drafts = [NOTHING] * len(seqs)
        sizes = self._sizes(seqs, budget)
        live = [i for i, view in enumerate(seqs) if sizes[i] and fits(view)]
        self._asked = False
        if self.pace is not None:
            self.pace.only([seqs[i].seq for i in live])
        if live:
            depth = 1 + max(self.tree.depths[: max(sizes[i] for i in live)])
            for i, mine in zip(live, self._guess(seqs, live, depth, best)[0], strict=True):
                chosen = mine[self.tree.depths[: sizes[i]], self.tree.ranks[: sizes[i]]]
                drafts[i] = Draft(tuple(chosen.tolist()), self.tree.parents[: sizes[i]])
        return drafts

    def _sizes(self, seqs: Sequence[SeqView], budget: int) -> list[int]:
        if self.pace is None:
            return self._fixed(seqs, budget)
        most = self._most(seqs)
        awake = self.pace.awake(seqs)
        worths: list[Sequence[float]] = [()] * len(seqs)
        for i in awake:
            worths[i] = self.pace.worth(seqs[i].seq, 0, most[i])
        hopes = [self.pace.hope(0, len(worth)) for worth in worths]
        sizes, gain = self.pace.best(worths, budget, self._draft_s.value, hopes)
        who = [0 if worth else -1 for worth in worths]
        return self.pace.settle(seqs, who, list(map(len, worths)), sizes, gain, budget, needed=self.pace.needed(seqs))


class Promise:
    """What drafts promised a sequence of late: tokens and rows, means over all looks, also those that led to none."""

    __slots__ = ("looks", "rows", "tokens")

    def __init__(self, believed: Sequence[float] = ()) -> None:
        """believed: what each row should bring, for so long as little was seen."""
        self.looks, self.tokens, self.rows = BELIEVED if believed else 0.0, sum(believed), float(len(believed))

    def saw(self, tokens: float, rows: int) -> None:
        self.looks = min(LATELY, self.looks + 1)
        self.tokens += (tokens - self.tokens) / self.looks
        self.rows += (rows - self.rows) / self.looks

    def worth(self) -> list[float]:
        """As if each row that is drafted brought as much."""
        count = max(1, round(self.rows))
        return [self.tokens / count] * count


class DynamicGuesses(Guesses):
    """The nodes that should come true most often this time, as many as pay this time.

    Guessing takes time, too: whether it pays is told by what drafts promised of late, those of no nodes among them."""

    def __init__(self, nodes: int | str, accuracy: Floats, chances: Floats) -> None:
        self._tree = DynamicTree(accuracy, chances)
        usual = searched(accuracy, nodes if isinstance(nodes, int) else MOST)
        given: list[float] = []
        for parent, depth, rank in zip(usual.parents, usual.depths, usual.ranks, strict=True):
            given.append((given[parent] if parent >= 0 else 1.0) * float(accuracy[depth, rank]))
        likely = Likely([-1] * len(given), given)  # of the surest node, the second one and so on, whoever their parents
        super().__init__(self._tree.among.depth, self._tree.width, likely, nodes == AUTO)
        self._promises: dict[SeqId, Promise] = {}
        self._tried: set[SeqId] = set()  # in this step, to see whether their nodes come true

    def begin(self, seq: SeqId) -> None:
        super().begin(seq)
        if self.pace is not None:
            self.pace.try_now(seq)

    def end(self, seq: SeqId) -> None:
        super().end(seq)
        self._promises.pop(seq, None)

    def ranked(self, logits: Floats) -> Guessed:
        best = ranked_rows(logits, self.width)
        return best, surely(logits, best)

    def drafts(
        self, seqs: Sequence[SeqView], budget: int, best: Best, fits: Callable[[SeqView], bool] = lambda view: True
    ) -> list[Draft]:
        drafts = [NOTHING] * len(seqs)
        self._asked = False
        pace = self.pace
        if pace is None:
            sizes = self._fixed(seqs, budget)
            live = [i for i, view in enumerate(seqs) if sizes[i] and fits(view)]
        else:
            most = self._most(seqs)
            live = [i for i in pace.awake(seqs) if most[i] and fits(seqs[i])]
            live = live if live and budget > 0 and self._pays(seqs, live, budget) else []
        if not live:
            return drafts
        tree = self._tree
        tokens, sure = self._guess(seqs, live, self.depth, best)
        given = tree.given(sure)
        if pace is not None:
            ratios = np.array([[pace.ratio(seqs[i].seq, 0)] for i in live])
            surest = [tree.best(one, most[i]) for i, one in zip(live, np.minimum(SURE, ratios * given), strict=True)]
            sizes = self._paid(seqs, live, [worth for _, worth in surest], budget)
            orders = [order[: sizes[i]] for i, (order, _) in zip(live, surest, strict=True)]
        else:
            orders = [tree.best(one, sizes[i])[0] for i, one in zip(live, given, strict=True)]
        for i, order, guesses, chances in zip(live, orders, tokens, given, strict=True):
            if len(order):
                drafts[i] = Draft(*tree.draft(order, guesses))
                if pace is not None:
                    pace.took(seqs[i].seq, drafts[i].parents, chances[order].tolist())
        return drafts

    def _pays(self, seqs: Sequence[SeqView], live: Sequence[int], budget: int) -> bool:
        """Whether to guess at all. Where not, those that could be drafted for are left alone for a while."""
        assert self.pace is not None
        pace = self.pace
        worths: list[Sequence[float]] = [()] * len(seqs)
        hopes: list[Sequence[float]] = [()] * len(seqs)
        looks: dict[SeqId, int] = {}  # of trials
        for i in live:
            left = pace.trial(seqs[i].seq)
            if left > 1:
                looks[seqs[i].seq] = left
            if seqs[i].seq not in self._promises:
                self._promises[seqs[i].seq] = Promise(pace.hope(0, USUAL // 4))
            elif left == TRIES:
                self._promises[seqs[i].seq] = Promise()
            worths[i] = self._promises[seqs[i].seq].worth()
            hopes[i] = pace.hope(0, USUAL // 4)
        sizes, gain = best_sizes(pace.curve, worths, budget, self._draft_s.value)
        pays = any(sizes) and gain >= pace.needed(seqs)
        self._tried = set(looks)
        if looks and best_sizes(pace.curve, hopes, budget, self._draft_s.value)[1] < GAIN:  # one look is trial enough
            self._tried = {seq for seq, left in looks.items() if left == TRIES}
        if not pays and not self._tried:
            best = [SURE**place for place in range(1, self.depth + 1)]  # if all of a chain came true
            never = best_sizes(pace.curve, [best] * len(seqs), budget, self._draft_s.value)[1] < GAIN
            pace.rest([seqs[i].seq for i in live], never and len(self._draft_s) > 1)
            return False
        pace.goes([seqs[i].seq for i in live], pays)
        return True

    def _paid(
        self, seqs: Sequence[SeqView], live: Sequence[int], offered: Sequence[Sequence[float]], budget: int
    ) -> list[int]:
        """Of the nodes that should bring as many tokens, how many each sequence gets."""
        assert self.pace is not None
        pace = self.pace
        worths: list[Sequence[float]] = [()] * len(seqs)
        for i, worth in zip(live, offered, strict=True):
            worths[i] = worth
        sizes, gain = best_sizes(pace.curve, worths, budget, 0.0)  # guessing is over
        for i in live:
            self._promises[seqs[i].seq].saw(sum(worths[i][: sizes[i]]), sizes[i])
        sizes, _ = pace.varied(worths, budget, 0.0, sizes, gain)
        for i in live:  # or nobody would learn that chances are better than they were
            if not sizes[i] and seqs[i].seq in self._tried:
                sizes[i] = min(PROBE, len(worths[i]), budget - sum(sizes))
        return sizes


def embedded(device: Device, model: Model, kv: KVCache, ids: Ints) -> Floats:
    """What the model makes of tokens before its first layer: (tokens, dim)."""
    every = np.arange(len(ids), dtype=np.int32)
    return device.download(model.embed(Batch(ids, np.zeros_like(every), (), every, kv)))


class Listens:
    """The part of a speculator that hands what it hears to its Guesses, which `prepare` sets, as it does the device."""

    _guesses: Guesses
    _device: Device
    _model: Any = None  # and _kv, from `attach` on
    _kv: Any = None
    prunes = False

    @property
    def listening(self) -> bool:
        return self._guesses.listening

    @property
    def likely(self) -> Likely:
        return self._guesses.likely

    def ready(self, seq: SeqId) -> bool:
        """Whether it can draft for a sequence: it has seen into its last pass."""
        return self._guesses.ready(seq)

    def newest(self, seqs: Sequence[SeqView]) -> Floats:
        """The embeddings of the tokens that came last, which states were not told of: (sequences, dim)."""
        ids = np.array([view.tokens[-1] for view in seqs], np.int32)
        return embedded(self._device, self._model, self._kv, ids)

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self._guesses.begin(seq)

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        states = None if spent.states is None else self._device.download(spent.states)
        self._guesses.heard(outcomes, spent, states)

    def end(self, seq: SeqId) -> None:
        self._guesses.end(seq)
