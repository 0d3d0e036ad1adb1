"""How many nodes of a draft are worth their rows, and who is left alone for a while: from what was measured so far.

Measured all the time: of each member and sequence how often nodes come true, beside what was expected; of members that
tell kinds of guesses apart, how often each kind does; of passes the seconds by number of rows. Drafting begins at a
gain of `gain`; where nothing is gained any more a sequence is left alone, and tried again with a few drafts after 16
steps, then 32, 64 and so on. While drafts pay, one step in `plain` goes without, so that the other side stays measured,
and in one a draft that can be of any size is larger or smaller than what seems best.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgewise.base import SeqId
from edgewise.decode.api import Accepted, SeqView, Spent
from edgewise.decode.curve import VerifyCurve, best_sizes

HOPE = 0.6  # what is believed of a chain before it was seen
SLOW = 0.98  # of what was seen of a member in all, that much is left after a step
SURE = 0.99  # no node is surer
PAUSE, LONGEST = 16, 1024  # steps
PROBE, TRIES = 2, 4  # tokens of a trial's drafts, and how many of them
FEW = 0.02  # tokens, from a node: those below it need not be looked at
SAME = 12.0  # guesses by which a sequence is first held to be like all the others
KIND, MEMORY = 2.0, 200.0  # guesses that the others' chance is worth, and that are remembered
LADDER, TWICE = (1, 3, 7, 15), 2  # sizes of drafts that are measured first, and how often


def match_class(same: int) -> int:
    """Of guesses that follow so many tokens which agree: 0 to 7."""
    return min(same, 4) if same < 5 else min(7, 2 + same.bit_length())


class Kinds:
    """How often a member's guesses of each kind came true where those before them did, those of all sequences."""

    __slots__ = ("_all", "_seen")

    def __init__(self) -> None:
        self._all = Seen()
        self._seen: dict[int, Seen] = {}

    def chance(self, kind: int) -> float:
        before = self._all.chance(HOPE, 2.0)
        seen = self._seen.get(kind)
        return before if seen is None else seen.chance(before, KIND)

    def saw(self, kind: int, hit: bool) -> None:
        seen = self._seen.get(kind)
        if seen is None:
            seen = self._seen[kind] = Seen()
        for one in (seen, self._all):
            one.add(float(hit), 1.0, 1 - 1 / MEMORY)


class Seen:
    """Drafted tokens that were checked, and those that came true, older ones fading."""

    __slots__ = ("hits", "tries")

    def __init__(self) -> None:
        self.hits = self.tries = 0.0

    def add(self, hits: float, tries: float, fade: float) -> None:
        self.hits = self.hits * fade + hits
        self.tries = self.tries * fade + tries

    def chance(self, before: float, weight: float) -> float:
        return (self.hits + weight * before) / (self.tries + weight)


@dataclass(frozen=True)
class Likely:
    """The nodes of a member's drafts, in order: each one's parent (-1: the last real token), and how often it should
    come true where its parent did, a list that is corrected.

    ratio: how often nodes come true beside that, believed before any was seen, for `weight` tokens' worth. fade: of
    what was seen of a sequence, that much is left after a step. learn: of a node's chance is what came of it last."""

    parents: Sequence[int]
    given: list[float]
    ratio: float = 1.0
    weight: float = 4.0
    fade: float = 0.97
    learn: float = 0.02

    @staticmethod
    def chain(depth: int) -> "Likely":
        return Likely(range(-1, depth - 1), [1.0] * depth, HOPE, 2.0, 0.9, 0.0)

    def worth(self, ratio: float, most: int) -> list[float]:
        """The chance of each of the first `most` nodes, where nodes come true `ratio` times as often as they should."""
        chances: list[float] = []
        for parent, given in zip(self.parents[:most], self.given[:most], strict=True):
            chances.append((chances[parent] if parent >= 0 else 1.0) * min(SURE, ratio * given))
        return chances

    def checked(self, nodes: Sequence[int], most: int) -> float:
        """How many of the first `most` nodes should have come true where these did: those below them, and the first."""
        open_ = {-1, *nodes}
        return sum(given for parent, given in zip(self.parents[:most], self.given, strict=False) if parent in open_)

    def correct(self, nodes: Sequence[int], most: int) -> None:
        """These of the first `most` nodes came true."""
        open_ = {-1, *nodes}
        for node, parent in enumerate(self.parents[:most]):
            if parent in open_:
                self.given[node] += self.learn * ((node in nodes) - self.given[node])


class Course:
    """What is known of one sequence."""

    __slots__ = ("going", "pause", "probing", "seen", "tries", "wait")

    def __init__(self, members: int) -> None:
        self.seen = [Seen() for _ in range(members)]
        self.wait, self.pause, self.probing = 0, PAUSE, False
        self.tries = 0  # drafts that this trial has left
        self.going = False  # drafts paid when it was last drafted for


class Pace:
    """members: what their drafts look like. An owner asks `awake`, finds sizes and the gain that they promise, and has
    them settled; of each step it passes on what `accepted` tells."""

    def __init__(self, members: Sequence[Likely], gain: float, plain: int) -> None:
        self.members = list(members)
        self.gain, self.plain = gain, plain
        self.curve = VerifyCurve()
        self._all = [Seen() for _ in members]
        self._kinds = [Kinds() for _ in members]
        self._learnt: set[SeqId] = set()  # in this step
        self._courses: dict[SeqId, Course] = {}
        self.asked: dict[SeqId, tuple[int, int]] = {}  # in the last step: member, nodes
        self._said: dict[SeqId, Likely] = {}  # in the last step: its nodes, where they are new ones each time
        self._steps = 0  # with drafts, since the last one without
        self.plain_step = False  # this step is there to measure plain decoding
        self._tried: Counter[int] = Counter()  # rows of passes for the sake of the curve
        self._hopeless = False  # drafts would not pay even if they did as well as they can
        self._wider = False  # than what seems best was the last draft of another size

    @property
    def listening(self) -> bool:
        """Somebody may be drafted for in the next step. Else, and to measure plain decoding, nobody has to look."""
        return not self.plain_step and any(course.wait < 2 for course in self._courses.values())

    def begin(self, seq: SeqId) -> None:
        self._courses[seq] = Course(len(self.members))

    def end(self, seq: SeqId) -> None:
        self._courses.pop(seq, None)

    def awake(self, seqs: Sequence[SeqView]) -> list[int]:
        """Who may be drafted for in this step: nobody when plain decoding is to be measured."""
        self.asked.clear()
        self._said.clear()
        awake = [i for i, view in enumerate(seqs) if self._wakes(self._courses[view.seq])]
        self.plain_step = bool(awake) and (not self.curve.seconds(len(seqs)) or self._steps >= self.plain)
        if not awake or self.plain_step:
            self._steps = 0
            return []
        return awake

    def _wakes(self, course: Course) -> bool:
        if course.wait:
            course.wait -= 1
            course.probing = not course.wait
            course.tries = TRIES
            return course.probing
        return True

    def probing(self, seq: SeqId) -> bool:
        """It has just been left alone, and is tried again."""
        return self._courses[seq].tries > 0

    def worth(self, seq: SeqId, at: int, most: int, kinds: Sequence[int] = ()) -> list[float]:
        """What each node of a member's draft should bring this sequence, in tokens. kinds: of a chain's nodes."""
        member = self.members[at]
        if kinds:
            ratio = self._courses[seq].seen[at].chance(1.0, SAME)
            chance, worths, table = 1.0, [], self._kinds[at]
            for kind in kinds[:most]:
                chance *= min(SURE, ratio * table.chance(kind))
                if chance < FEW:
                    break
                worths.append(chance)
            return worths
        return member.worth(self.ratio(seq, at), most)

    def ratio(self, seq: SeqId, at: int) -> float:
        """How often a member's nodes come true for this sequence, beside what was expected."""
        member = self.members[at]
        in_all = self._all[at].chance(member.ratio, member.weight)
        return self._courses[seq].seen[at].chance(in_all, member.weight)

    def hope(self, at: int, most: int) -> list[float]:
        """What each node of a member's draft should bring where it does as well as it was made to."""
        member = self.members[at]
        return member.worth(max(1.0, self._all[at].chance(member.ratio, member.weight)), most)

    def needed(self, seqs: Sequence[SeqView]) -> float:
        """The gain that drafts must promise: `gain` to begin, and any to go on, for what a few drafts show is not sure.
        """
        return 1.0 if any(self._courses[view.seq].going for view in seqs) else self.gain

    def best(
        self, worths: Sequence[Sequence[float]], budget: int, draft_s: float, hopes: Sequence[Sequence[float]] = ()
    ) -> tuple[list[int], float]:
        """Sizes of drafts and the gain that they promise: those that pay best, or others that are to be measured.
        hopes: what they might bring at best; where that does not pay either, one draft is trial enough."""
        trial = any(course.tries for course in self._courses.values())
        self._hopeless = trial and bool(hopes) and best_sizes(self.curve, hopes, budget, draft_s)[1] < self.gain
        return self.varied(worths, budget, draft_s, *best_sizes(self.curve, worths, budget, draft_s))

    def varied(
        self, worths: Sequence[Sequence[float]], budget: int, draft_s: float, sizes: list[int], gain: float
    ) -> tuple[list[int], float]:
        """The sizes that pay best, or others that are to be measured."""
        step = self._step(worths, budget, draft_s)
        if step:
            return [min(step, len(worth)) for worth in worths], self.gain
        if gain >= self.gain and self._steps == self.plain // 2:
            self._wider = not self._wider
            sizes = [(2 * some + 1 if self._wider else some // 2) if some > 1 else some for some in sizes]
            sizes = [min(some, len(worth)) for some, worth in zip(sizes, worths, strict=True)]
        return sizes, gain

    def _step(self, worths: Sequence[Sequence[float]], budget: int, draft_s: float) -> int:
        """A size that is to be measured before sizes can be compared: the smallest of which nothing is known, if it
        might pay between the price of the one before and what that lets expect. 0: none."""
        count, live = len(worths), [worth for worth in worths if worth]
        plain = before = self.curve.seconds(count)
        for size in LADDER:
            extra = size * len(live)
            if not 0 < extra <= budget or any(len(worth) < size for worth in live):
                return 0
            rows = count + extra
            price = max(before, self.curve.seconds(rows))
            if self._tried[rows] < TWICE and (self._tried[rows] or not self.curve.near(rows)):
                made = count + sum(sum(worth[:size]) for worth in live)
                if made * plain > self.gain * ((before + price) / 2 + draft_s) * count:
                    self._tried[rows] += 1
                    return size
            else:
                before = price
        return 0

    def compare(self, outcome: Accepted, at: int, tokens: Sequence[int], kinds: Sequence[int] = ()) -> None:
        """Learns of a member's chain, also when it was only looked at: what came, or would have come true of it, as far
        as is known."""
        if outcome.seq not in self._courses:
            return
        member, some = self.asked.get(outcome.seq, (-1, 0))
        if member == at:
            self._learnt.add(outcome.seq)
            hits, known = len(outcome.nodes), some
        else:
            hits, known = 0, min(len(tokens), len(outcome.tokens))
            while hits < known and tokens[hits] == outcome.tokens[hits]:
                hits += 1
        tries: float = min(hits + 1, known)
        if kinds:
            table, expected = self._kinds[at], 0.0
            for place, kind in enumerate(kinds[: int(tries)]):
                expected += table.chance(kind)
                table.saw(kind, place < hits)
            tries = expected
        else:
            self._all[at].add(hits, tries, SLOW)
        self._courses[outcome.seq].seen[at].add(hits, tries, self.members[at].fade)

    def only(self, seqs: Collection[SeqId]) -> None:
        """Nobody but these was drafted for, after all."""
        self.asked = {seq: asked for seq, asked in self.asked.items() if seq in seqs}

    def settle(
        self, seqs: Sequence[SeqView], who: Sequence[int], offered: Sequence[int], sizes: Sequence[int], gain: float,
        budget: int, looked: Collection[int] = (), needed: float = 0.0,
    ) -> list[int]:  # fmt: skip
        """The nodes that each sequence gets of those offered by member who[i]; -1: nobody has any. Those for whom none
        pay are left alone from now on. looked: members whose drafts are compared with the text in any case: trying them
        teaches nothing. needed: the gain that drafts must promise; `gain` where it is not given."""
        settled = [0] * len(seqs)
        needed = needed or self.gain
        for i, view in enumerate(seqs):
            course = self._courses[view.seq]
            some = sizes[i] if gain >= needed else 0
            if who[i] >= 0:
                course.going = some > 0
            if who[i] >= 0 and not some:
                if course.tries and who[i] not in looked:
                    some = min(PROBE, offered[i])
                    course.tries = 0 if self._hopeless else course.tries - 1
                elif not course.wait:
                    course.wait, course.pause = course.pause, min(2 * course.pause, LONGEST)
            elif some:  # also of those that were left alone, and whose drafts began to come true
                course.pause, course.wait = PAUSE, 0
            settled[i] = some = min(some, budget)
            budget -= some
            course.probing = course.probing and who[i] < 0
            course.tries *= not course.going
            if some:
                self.asked[view.seq] = (who[i], some)
        self._steps = self._steps + 1 if self.asked else 0
        return settled

    # of an owner whose drafts are new trees each time, and which looks at them before it decides:
    def try_now(self, seq: SeqId) -> None:
        self._courses[seq].tries = TRIES

    def trial(self, seq: SeqId) -> int:
        """Looks that its trial had left, TRIES before the first one; 1 or 0: it is over. Counts."""
        course = self._courses[seq]
        left, course.tries, course.probing = course.tries, max(0, course.tries - 1), False
        return left

    def goes(self, seqs: Sequence[SeqId], pays: bool) -> None:
        """These sequences are drafted for, because that pays or for a trial."""
        for course in map(self._courses.__getitem__, seqs):
            course.going = pays
            course.pause = PAUSE if pays else course.pause
        self._steps = self._steps + 1 if pays else 0

    def rest(self, seqs: Sequence[SeqId], never: bool) -> None:
        """These sequences are left alone from now on. never: it is not their text's fault."""
        for course in map(self._courses.__getitem__, seqs):
            course.going = False
            course.wait, course.pause = LONGEST if never else course.pause, min(2 * course.pause, LONGEST)
        self._steps = 0

    def took(self, seq: SeqId, parents: Sequence[int], given: list[float]) -> None:
        """These nodes are drafted. given: how often each should come true where its parent does."""
        self.asked[seq], self._said[seq] = (0, len(parents)), Likely(parents, given)

    def heard(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        for outcome in outcomes:
            at, some = self.asked.get(outcome.seq, (-1, 0))
            if outcome.seq in self._said:
                self._learn(outcome, at, len(outcome.nodes), self._said[outcome.seq].checked(outcome.nodes, some))
            elif at >= 0 and outcome.seq not in self._learnt:
                member = self.members[at]
                hits, tries = len(outcome.nodes), member.checked(outcome.nodes, some)
                self._learn(outcome, at, hits, tries)
                member.correct(outcome.nodes, some)
        self._learnt.clear()
        # what looking into a pass takes is drafting's affair
        if spent.decode and not spent.prefill and (self.asked or spent.states is None):
            self.curve.saw(spent.decode, spent.pass_s)

    def _learn(self, outcome: Accepted, at: int, hits: float, tries: float) -> None:
        self._all[at].add(hits, tries, SLOW)
        if outcome.seq in self._courses:
            self._courses[outcome.seq].seen[at].add(hits, tries, self.members[at].fade)
