"""Picks who drafts and how deep by what came true and what passes cost, and steps aside where nothing pays.

Measured all the time: of each member and sequence the chance that a drafted token comes true; of passes the seconds by
number of rows; of drafting the seconds. Before each pass the depths are chosen that give most tokens a second over all
sequences of the batch. Below a gain of `gain` a sequence is left alone, and tried again after 16 steps, then 32, 64 and
so on. While drafts pay, one step in `plain` goes without, so that the other side stays measured.

Paper:  Liu et al., Optimizing Speculative Decoding for Serving LLMs Using Goodput, 2024, arXiv:2406.14066
Exact.
Needs:  what its members need
Cost:   some microseconds a step beside its members'; wrong guesses at most a twentieth of the time
Status: kept
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from edgewise.base import BadInput, Cap, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Speculator, Spent, Target
from edgewise.decode.curve import best_sizes
from edgewise.decode.pacing import PROBE, Likely, Pace
from edgewise.decode.speculators import SPECULATORS, WITH_MODEL

NOTHING = Draft()


class AutoSpeculator:
    """members: catalog names joined with +, cheap ones only, in the order in which they are asked. model: of a draft
    model, asked where they find nothing or less. depth: most tokens of a draft."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, members: str = "ngram+suffix", model: str = "", depth: int = 12, gain: float = 1.05, plain: int = 64
    ) -> None:
        if not (isinstance(depth, int) and depth >= 1 and gain >= 1 and isinstance(plain, int) and plain >= 2):
            raise BadInput(f"speculator 'auto': depth={depth!r}, gain={gain!r} or plain={plain!r} makes no sense.")
        self.members: list[Speculator] = [
            SPECULATORS.build(name, depth=depth) for name in members.split("+") if name
        ]
        if model:
            self.members.append(SPECULATORS.build(WITH_MODEL, model=model, depth=depth))
        if not self.members:
            raise BadInput("speculator 'auto' needs members, as in auto:members=ngram+suffix, or a model.")
        self.slow = len(self.members) - 1 if model else -1  # the one whose depth has to be known before
        self.depth = depth
        self.pace = Pace([Likely.chain(depth)] * len(self.members), gain, plain)
        self._fixed_s = self._level_s = 0.0
        self._levels = 0  # that the draft model went down in the last step

    def prepare(self, target: Target) -> int:
        return sum(member.prepare(target) for member in self.members)

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self.pace.begin(seq)
        for member in self.members:
            member.begin(seq, tokens)

    def end(self, seq: SeqId) -> None:
        self.pace.end(seq)
        for member in self.members:
            member.end(seq)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        pace = self.pace
        self._levels = 0
        drafts = [NOTHING] * len(seqs)
        awake = pace.awake(seqs)
        if not awake or budget < 1:
            return drafts
        who = [-1] * len(seqs)
        for at in range(len(self.members)):
            if at == self.slow:
                continue
            open_ = [i for i in awake if who[i] < 0]
            if not open_:
                break
            views = [replace(seqs[i], most=self.depth) for i in open_]
            for i, draft in zip(open_, self.members[at].propose(views, len(open_) * self.depth), strict=True):
                if draft.tokens:
                    drafts[i], who[i] = draft, at
        worths = [
            pace.worth(view.seq, at, len(draft.tokens)) if at >= 0 else []
            for view, at, draft in zip(seqs, who, drafts, strict=True)
        ]
        sizes, gain = best_sizes(pace.curve, worths, budget, self._fixed_s)
        if self.slow >= 0:
            sizes, gain = self._model_instead(seqs, awake, budget, drafts, who, sizes, gain)
        settled = pace.settle(seqs, who, [len(draft.tokens) for draft in drafts], sizes, gain, budget)
        return [_cut(draft, some) for draft, some in zip(drafts, settled, strict=True)]

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        self.pace.heard(outcomes, spent)
        if self._levels > 0:
            each = max(0.0, spent.draft_s - self._fixed_s) / self._levels
            self._level_s += (0.1 if self._level_s else 1.0) * (min(each, 3 * self._level_s or each) - self._level_s)
        elif spent.draft_s and not self._levels:
            self._fixed_s += 0.05 * (spent.draft_s - self._fixed_s)
        for member in self.members:
            member.accepted(outcomes, spent)

    def _model_instead(
        self, seqs: Sequence[SeqView], awake: Sequence[int], budget: int, drafts: list[Draft], who: list[int],
        sizes: list[int], gain: float,
    ) -> tuple[list[int], float]:  # fmt: skip
        """Lets the draft model draft for those whom it serves better: edits drafts and who, gives sizes and gain."""
        slow, pace = self.slow, self.pace
        worths = [pace.worth(view.seq, slow, self.depth) if i in awake else [] for i, view in enumerate(seqs)]
        wanted, better = best_sizes(pace.curve, worths, budget, self._fixed_s, self._level_s)
        probing = [i for i in awake if pace.probing(seqs[i].seq)]
        if better <= gain or better < pace.gain:
            if gain >= pace.gain or not probing:
                for i in awake if gain < pace.gain else ():
                    who[i] = slow if who[i] < 0 else who[i]  # nobody serves it: it will be left alone for a while
                return sizes, gain
            wanted = [PROBE if i in probing else 0 for i in range(len(seqs))]
        views = [replace(view, most=wanted[i]) for i, view in enumerate(seqs)]
        found = self.members[slow].propose(views, budget)
        self._levels = max(len(draft.tokens) for draft in found) or -1  # -1: it was catching up with a text
        for i, draft in enumerate(found):
            if draft.tokens:
                drafts[i], who[i] = draft, slow
        return [len(draft.tokens) if who[i] == slow else 0 for i, draft in enumerate(drafts)], max(better, gain)


def _cut(draft: Draft, some: int) -> Draft:
    """The first nodes of a chain."""
    if some >= len(draft.tokens):
        return draft
    return Draft(draft.tokens[:some], draft.parents[:some], draft.odds[:some], draft.replaced) if some else NOTHING
