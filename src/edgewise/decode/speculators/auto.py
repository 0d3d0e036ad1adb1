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
from edgewise.decode.curve import VerifyCurve, best_depths
from edgewise.decode.speculators import SPECULATORS, WITH_MODEL

NOTHING = Draft()
HOPE, WEIGHT = 0.6, 2.0  # what is believed of a member before it was seen, and for how many tokens' worth
FADE, SLOW = 0.9, 0.98  # of what was seen, a step: of a sequence, of a member in all
PAUSE, LONGEST = 16, 1024  # steps
PROBE = 2  # tokens


class Seen:
    """Drafted tokens that were checked, and those that came true, older ones fading."""

    __slots__ = ("hits", "tries")

    def __init__(self) -> None:
        self.hits = self.tries = 0.0

    def add(self, hits: int, tries: int, fade: float) -> None:
        self.hits = self.hits * fade + hits
        self.tries = self.tries * fade + tries

    def chance(self, before: float, weight: float = WEIGHT) -> float:
        return (self.hits + weight * before) / (self.tries + weight)


class Course:
    """What is known of one sequence."""

    __slots__ = ("pause", "probing", "seen", "wait")

    def __init__(self, members: int) -> None:
        self.seen = [Seen() for _ in range(members)]
        self.wait, self.pause, self.probing = 0, PAUSE, False


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
        self.depth, self.gain, self.plain = depth, gain, plain
        self.curve = VerifyCurve()
        self._all = [Seen() for _ in self.members]
        self._courses: dict[SeqId, Course] = {}
        self._asked: dict[SeqId, tuple[int, int]] = {}  # of the last step: member, tokens
        self._fixed_s = self._level_s = 0.0
        self._levels = 0  # that the draft model went down in the last step
        self._steps = 0  # with drafts, since the last one without

    def prepare(self, target: Target) -> int:
        return sum(member.prepare(target) for member in self.members)

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self._courses[seq] = Course(len(self.members))
        for member in self.members:
            member.begin(seq, tokens)

    def end(self, seq: SeqId) -> None:
        self._courses.pop(seq, None)
        for member in self.members:
            member.end(seq)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        self._asked.clear()
        self._levels = 0
        drafts = [NOTHING] * len(seqs)
        awake = [i for i, view in enumerate(seqs) if self._awake(self._courses[view.seq])]
        if not awake or budget < 1 or not self.curve.seconds(len(seqs)) or self._steps >= self.plain:
            self._steps = 0
            return drafts
        who = [-1] * len(seqs)
        chances = [0.0] * len(seqs)
        for at in range(len(self.members)):
            if at == self.slow:
                continue
            open_ = [i for i in awake if who[i] < 0]
            if not open_:
                break
            views = [replace(seqs[i], most=self.depth) for i in open_]
            for i, draft in zip(open_, self.members[at].propose(views, len(open_) * self.depth), strict=True):
                if draft.tokens:
                    drafts[i], who[i], chances[i] = draft, at, self._chance(seqs[i].seq, at)
        depths, gain = best_depths(
            self.curve, chances, [len(draft.tokens) for draft in drafts], budget, self._fixed_s, 0.0
        )
        if self.slow >= 0:
            depths, gain = self._model_instead(seqs, awake, budget, drafts, who, depths, gain)
        for i, view in enumerate(seqs):
            course = self._courses[view.seq]
            some = depths[i] if gain >= self.gain else 0
            if who[i] >= 0 and not some:
                if course.probing:
                    some = min(PROBE, len(drafts[i].tokens), budget)
                else:
                    course.wait, course.pause = course.pause, min(2 * course.pause, LONGEST)
            elif some:
                course.pause = PAUSE
            some = min(some, budget)
            budget -= some
            course.probing = course.probing and who[i] < 0
            drafts[i] = _cut(drafts[i], some)
            if some:
                self._asked[view.seq] = (who[i], some)
        self._steps = self._steps + 1 if self._asked else 0
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        for outcome in outcomes:
            at, some = self._asked.pop(outcome.seq, (-1, 0))
            if at >= 0:
                kept = len(outcome.nodes)
                tries = min(kept + 1, some)
                self._all[at].add(kept, tries, SLOW)
                if outcome.seq in self._courses:
                    self._courses[outcome.seq].seen[at].add(kept, tries, FADE)
        if spent.decode and not spent.prefill:
            self.curve.saw(spent.decode, spent.pass_s)
        if self._levels > 0:
            each = max(0.0, spent.draft_s - self._fixed_s) / self._levels
            self._level_s += (0.1 if self._level_s else 1.0) * (min(each, 3 * self._level_s or each) - self._level_s)
        elif spent.draft_s and not self._levels:
            self._fixed_s += 0.05 * (spent.draft_s - self._fixed_s)
        for member in self.members:
            member.accepted(outcomes, spent)

    def _awake(self, course: Course) -> bool:
        if course.wait:
            course.wait -= 1
            course.probing = not course.wait
            return course.probing
        return True

    def _chance(self, seq: SeqId, at: int) -> float:
        return min(0.99, self._courses[seq].seen[at].chance(self._all[at].chance(HOPE)))

    def _model_instead(
        self, seqs: Sequence[SeqView], awake: Sequence[int], budget: int, drafts: list[Draft], who: list[int],
        depths: list[int], gain: float,
    ) -> tuple[list[int], float]:  # fmt: skip
        """Lets the draft model draft for those whom it serves better: edits drafts and who, gives depths and gain."""
        slow = self.slow
        chances = [self._chance(view.seq, slow) if i in awake else 0.0 for i, view in enumerate(seqs)]
        most = [self.depth if chance else 0 for chance in chances]
        wanted, better = best_depths(self.curve, chances, most, budget, self._fixed_s, self._level_s)
        probing = [i for i in awake if self._courses[seqs[i].seq].probing]
        if better <= gain or better < self.gain:
            if gain >= self.gain or not probing:
                for i in awake if gain < self.gain else ():
                    who[i] = slow if who[i] < 0 else who[i]  # nobody serves it: it will be left alone for a while
                return depths, gain
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
