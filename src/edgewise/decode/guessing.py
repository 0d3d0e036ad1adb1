"""Drafts of those that guess several places at once from one state of the target: a tree of ranks, or its beginning."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Spent
from edgewise.decode.choices import SEARCHED, ChoiceTree, choose_tree
from edgewise.decode.curve import Late
from edgewise.decode.pacing import Likely, Pace
from edgewise.kernels.api import Device, Floats

NOTHING = Draft()
AUTO, MOST, USUAL = "auto", 24, 12  # nodes: of a tree that is cut as measured; where nothing is said of another one
GAIN, PLAIN = 1.05, 64

Best = Callable[[Sequence[SeqView], Floats, int], Any]


def node_count(who: str, nodes: int | str, depth: int) -> None:
    """Raises BadInput where these settings make no sense."""
    if not (nodes == AUTO or (isinstance(nodes, int) and nodes >= 1)) or not (isinstance(depth, int) and depth >= 1):
        raise BadInput(
            f"speculator '{who}': nodes={nodes!r} must be {AUTO} or an integer, and depth={depth!r} an integer, of at "
            "least 1."
        )


class Guesses:
    """Of every sequence the state that drafts are made of, and a tree that says which guesses are combined.

    nodes: of the tree; "auto": a searched tree is cut before each pass to as many of its first nodes as pay, none
    included, and other trees are taken as they are. accuracy: (heads, ranks), calibrated."""

    def __init__(self, who: str, tree: str, nodes: int | str, accuracy: Floats) -> None:
        count = nodes if isinstance(nodes, int) else MOST if tree == SEARCHED else USUAL
        self.tree: ChoiceTree = choose_tree(who, tree, count, accuracy)
        given = [float(accuracy[depth, rank]) for depth, rank in zip(self.tree.depths, self.tree.ranks, strict=True)]
        self.likely = Likely(self.tree.parents, given)
        paced = nodes == AUTO and tree == SEARCHED
        self.pace = Pace([self.likely], GAIN, PLAIN) if paced else None
        self._draft_s = Late()
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
            if self.pace.asked:
                self._draft_s.saw(spent.draft_s)
            self.pace.heard(outcomes, spent)

    def drafts(
        self, seqs: Sequence[SeqView], budget: int, best: Best, fits: Callable[[SeqView], bool] = lambda view: True
    ) -> list[Draft]:
        """best: of some sequences, their states (sequences, dim) and a depth the best tokens (sequences, depth, ranks).
        fits: whether a sequence that is to be drafted for can be."""
        drafts = [NOTHING] * len(seqs)
        sizes = self._sizes(seqs, budget)
        live = [i for i, view in enumerate(seqs) if sizes[i] and fits(view)]
        if self.pace is not None:
            self.pace.only([seqs[i].seq for i in live])
        if live:
            states = np.stack([self._states[seqs[i].seq] for i in live])  # type: ignore[misc]
            depth = 1 + max(self.tree.depths[: max(sizes[i] for i in live)])
            for i, mine in zip(live, best([seqs[i] for i in live], states, depth), strict=True):
                chosen = mine[self.tree.depths[: sizes[i]], self.tree.ranks[: sizes[i]]]
                drafts[i] = Draft(tuple(chosen.tolist()), self.tree.parents[: sizes[i]])
        return drafts

    def _sizes(self, seqs: Sequence[SeqView], budget: int) -> list[int]:
        most = [
            min(view.most, len(self.tree.parents)) if self.ready(view.seq) and view.ahead else 0 for view in seqs
        ]
        if self.pace is None:
            sizes = []
            for some in most:
                sizes.append(min(some, budget))
                budget -= sizes[-1]
            return sizes
        awake = self.pace.awake(seqs)
        worths: list[Sequence[float]] = [()] * len(seqs)
        for i in awake:
            worths[i] = self.pace.worth(seqs[i].seq, 0, most[i])
        hopes = [self.pace.hope(0, len(worth)) for worth in worths]
        sizes, gain = self.pace.best(worths, budget, self._draft_s.value, hopes)
        who = [0 if worth else -1 for worth in worths]
        return self.pace.settle(seqs, who, list(map(len, worths)), sizes, gain, budget, needed=self.pace.needed(seqs))


class Listens:
    """The part of a speculator that hands what it hears to its Guesses, which `prepare` sets, as it does the device."""

    _guesses: Guesses
    _device: Device
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

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self._guesses.begin(seq)

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        states = None if spent.states is None else self._device.download(spent.states)
        self._guesses.heard(outcomes, spent, states)

    def end(self, seq: SeqId) -> None:
        self._guesses.end(seq)
