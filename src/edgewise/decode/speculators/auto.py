"""Picks who drafts and how deep by what came true and what passes cost, and steps aside where nothing pays.

Measured all the time: of each member and sequence the chance that a drafted token comes true; of passes the seconds by
number of rows; of drafting the seconds. Before each pass the depths are chosen that give most tokens a second over all
sequences of the batch. Below a gain of `gain` a sequence is left alone, and tried again after 16 steps, then 32, 64 and
so on. Drafts of the cheap members are compared with what the text became also when others, or nobody, drafted, as often
as asking takes little of the time: so it is known who is worth what before a row is paid for it.
While drafts pay, one step in `plain` goes without, so that the other side stays measured.

Paper:  Liu et al., Optimizing Speculative Decoding for Serving LLMs Using Goodput, 2024, arXiv:2406.14066
Exact.
Needs:  what its members need
Cost:   some microseconds a step beside its members'; wrong guesses at most a twentieth of the time
Status: kept
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from edgewise.base import BadInput, Cap, Incompatible, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, Insider, SeqView, Speculator, Spent, Target
from edgewise.decode.curve import Late, best_sizes
from edgewise.decode.guessing import MOST
from edgewise.decode.pacing import PROBE, Likely, Pace
from edgewise.decode.speculators import SPECULATORS, WITH_MODEL
from edgewise.kv.api import KVCache
from edgewise.models.api import Model

NOTHING = Draft()
CHEAP, DEAR = 0.015, 0.1  # of the time goes into drafts that are only looked at; where asking takes more, none are
LATER = 2  # steps, for which asking too much is remembered


class AutoSpeculator:
    """members: catalog names joined with +. Of the cheap ones the one drafts that promises most; a draft model, and
    those that draft from what they see inside the target, where they promise more. model: of a draft model. depth: most
    tokens of a path."""

    needs: frozenset[Cap] = frozenset({Cap.REWIND})  # and what its members need
    taps: frozenset[Tap] = frozenset()
    layer = -1
    prunes = False

    def __init__(
        self, members: str = "ngram+suffix", model: str = "", depth: int = 16, gain: float = 1.05, plain: int = 64
    ) -> None:
        if not (isinstance(depth, int) and depth >= 1 and gain >= 1 and isinstance(plain, int) and plain >= 2):
            raise BadInput(f"speculator 'auto': depth={depth!r}, gain={gain!r} or plain={plain!r} makes no sense.")
        self.members: list[Speculator] = []
        self.inside: dict[int, str] = {}  # members that see inside the target: their names
        for name in filter(None, members.split("+")):
            settings = {"depth": depth}
            if SPECULATORS.load(name).taps:
                self.inside[len(self.members)] = name
                settings["nodes"] = MOST
            self.members.append(SPECULATORS.build(name, **settings))
        if model:
            self.members.append(SPECULATORS.build(WITH_MODEL, model=model, depth=depth))
        if not self.members:
            raise BadInput("speculator 'auto' needs members, as in auto:members=ngram+suffix, or a model.")
        seen = {member.taps for member in self.members if member.taps}
        if len(seen) > 1:
            raise BadInput(
                f"speculator 'auto': {' and '.join(self.inside.values())} look at different states of a pass, and one "
                "of them can be shown. Leave one out of members."
            )
        self.taps = frozenset().union(*seen)
        self.needs = self.needs.union(*(member.needs for member in self.members))
        self.slow = len(self.members) - 1 if model else -1  # the one that works for each token of a path
        self.depth = depth
        self.pace = Pace([Likely.chain(depth)] * len(self.members), gain, plain)
        self._fixed_s = Late()  # of asking the cheap ones
        self._unit_s = [Late() for _ in self.members]  # of the others: of a level, or of a draft
        self._worked = (-1, 0)  # in the last step: which of the others, and for how many units; 0: it was catching up
        self._turn = 0
        self._debt_s = 0.0  # of what was asked, beside what may be
        self._offers: dict[SeqId, list[tuple[int, Draft]]] = {}  # in the last step: member, chain

    def prepare(self, target: Target) -> int:
        held = 0
        for at, member in enumerate(self.members):
            try:
                held += member.prepare(target)
            except (BadInput, Incompatible) as problem:
                if at not in self.inside:
                    raise
                raise type(problem)(f"speculator 'auto': no {self.inside[at]}. {problem}") from None
            if at in self.inside:
                self.layer, self.pace.members[at] = cast(Any, member).layer, cast(Any, member).likely
        return held

    @property
    def listening(self) -> bool:
        return self.pace.listening

    def attach(self, model: Model, kv: KVCache) -> None:
        for at in self.inside:
            cast(Insider, self.members[at]).attach(model, kv)

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
        self._worked = (-1, 0)
        drafts = [NOTHING] * len(seqs)
        self._offers.clear()
        awake = pace.awake(seqs)
        watched: Sequence[int] = awake
        cheap: Collection[int] = ()  # members whose drafts are looked at for everybody
        if self._fixed_s.value < DEAR * pace.curve.seconds(len(seqs)):
            if not pace.plain_step and self._debt_s <= 0:
                watched = range(len(seqs))
            cheap = [at for at in range(len(self.members)) if at != self.slow and at not in self.inside]
        if not watched or budget < 1:
            return drafts
        who = [-1] * len(seqs)
        worths: list[list[float]] = [[] for _ in seqs]
        dear = [at for at in range(len(self.members)) if at == self.slow or at in self.inside]
        views = [replace(seqs[i], most=min(self.depth, seqs[i].ahead)) for i in watched]
        for at in range(len(self.members)):
            if at in dear:
                continue
            for i, draft in zip(watched, self.members[at].propose(views, len(views) * self.depth), strict=True):
                if draft.tokens:
                    self._offers.setdefault(seqs[i].seq, []).append((at, draft))
                    worth = pace.worth(seqs[i].seq, at, len(draft.tokens), draft.kinds)
                    if sum(worth) > sum(worths[i]):
                        drafts[i], who[i], worths[i] = draft, at, worth
        sizes, gain = best_sizes(pace.curve, worths, budget, self._fixed_s.value)
        if dear:
            sizes, gain = self._rather(dear, seqs, awake, budget, drafts, who, sizes, gain)
        offered, needed = [len(draft.tokens) for draft in drafts], pace.gain
        if self._worked[0] >= 0:
            needed = pace.needed(seqs)
        settled = pace.settle(seqs, who, offered, sizes, gain, budget, cheap, needed)
        return [_cut(draft, some) for draft, some in zip(drafts, settled, strict=True)]

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        for outcome in outcomes:
            for at, draft in self._offers.pop(outcome.seq, ()):
                self.pace.compare(outcome, at, draft.tokens, draft.kinds)
        self.pace.heard(outcomes, spent)
        if spent.decode and not spent.prefill:
            due, took = CHEAP * spent.pass_s, min(spent.draft_s, 2 * self._fixed_s.value)  # prompts are read but once
            self._debt_s = min(LATER * due, max(-due, self._debt_s + took - due))
        at, units = self._worked
        if units > 0:
            self._unit_s[at].saw(max(0.0, spent.draft_s - self._fixed_s.value) / units)
        elif at < 0 and spent.draft_s:
            self._fixed_s.saw(spent.draft_s)
        for member in self.members:
            member.accepted(outcomes, spent)

    def _promise(
        self, at: int, seqs: Sequence[SeqView], awake: Sequence[int], budget: int, gain: float
    ) -> tuple[float, list[int]]:
        """The gain that a member which is not cheap promises, and with which sizes. gain: of the cheap ones."""
        pace, fixed, each = self.pace, self._fixed_s.value, self._unit_s[at].value
        most = len(pace.members[at].given)
        worths = [
            pace.worth(view.seq, at, min(most, view.ahead)) if i in awake and self._sees(at, view.seq) else []
            for i, view in enumerate(seqs)
        ]
        if at not in self.inside:
            sizes, better = best_sizes(pace.curve, worths, budget, fixed, each)
        elif gain >= pace.gain:
            sizes, better = best_sizes(pace.curve, worths, budget, fixed + each)
        else:
            sizes, better = pace.best(worths, budget, fixed + each)
        return better, sizes

    def _sees(self, at: int, seq: SeqId) -> bool:
        """A member has what it drafts from."""
        return at not in self.inside or bool(cast(Any, self.members[at]).ready(seq))

    def _rather(
        self, dear: Sequence[int], seqs: Sequence[SeqView], awake: Sequence[int], budget: int, drafts: list[Draft],
        who: list[int], sizes: list[int], gain: float,
    ) -> tuple[list[int], float]:  # fmt: skip
        """Lets one of those that are not cheap draft for those whom it serves better: edits drafts and who, gives sizes
        and gain."""
        pace = self.pace
        promises = [(*self._promise(at, seqs, awake, budget, gain), at) for at in dear]
        better, wanted, at = max(promises, key=lambda promise: promise[0])
        probing = [i for i in awake if pace.probing(seqs[i].seq)]
        if better <= gain or better < pace.needed(seqs):
            if gain >= pace.gain:
                return sizes, gain
            if not probing:
                for i in awake:  # nobody serves it: it will be left alone for a while
                    who[i] = at if who[i] < 0 and self._sees(at, seqs[i].seq) else who[i]
                return sizes, gain
            self._turn += 1
            at = dear[self._turn % len(dear)]
            wanted = [PROBE if i in probing else 0 for i in range(len(seqs))]
        views = [replace(view, most=wanted[i]) for i, view in enumerate(seqs)]
        found = self.members[at].propose(views, budget)
        longest = max(len(draft.tokens) for draft in found)
        self._worked = (at, min(1, longest) if at in self.inside else longest)
        if gain < pace.gain:
            sizes = [0] * len(seqs)
        for i, draft in enumerate(found):
            if draft.tokens:
                drafts[i], who[i], sizes[i] = draft, at, len(draft.tokens)
        return sizes, max(better, gain)


def _cut(draft: Draft, some: int) -> Draft:
    """The first nodes of a draft."""
    if some >= len(draft.tokens):
        return draft
    if not some:
        return NOTHING
    return Draft(draft.tokens[:some], draft.parents[:some], draft.odds[:some], draft.replaced, draft.kinds[:some])
