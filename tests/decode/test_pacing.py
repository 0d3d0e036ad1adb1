"""auto and trees beside always and never drafting, in made-up seconds: T(N), chances and texts are given."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from edgewise.base import SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Spent
from edgewise.decode.curve import VerifyCurve
from edgewise.decode.guessing import guesses_of
from edgewise.decode.pacing import Kinds, Likely, Pace, match_class
from edgewise.decode.speculators.auto import AutoSpeculator
from edgewise.kernels.api import Floats

DEPTH, ASK_S = 8, 0.00002  # for each sequence
DICE = np.random.default_rng(1).random((61, 128, DEPTH)).tolist()
SHAPES: dict[str, Callable[[int], float]] = {  # a pass of N rows; that of one takes 10 ms
    "memory": lambda rows: 0.010 + 0.0008 * max(0, rows - 8),  # as measured with 262 MiB on two cores
    "compute": lambda rows: 0.004 + 0.006 * rows,
}
FLOORS = {("mixed", 4): 0.93}  # three end early, and the one for whom nobody can draft waited for their rows
Chance = Callable[[int, int], float]  # of a sequence (its number) and a place in its text
WORKLOADS: dict[str, Chance] = {
    "never": lambda seq, at: 0.0,
    "seldom": lambda seq, at: 0.3,
    "half": lambda seq, at: 0.6,
    "often": lambda seq, at: 0.9,
    "mixed": lambda seq, at: (0.0, 0.95, 0.3, 0.9)[(seq + 1) % 4],
    "by turns": lambda seq, at: 0.95 if (at + 5 * seq) % 16 < 10 else 0.1,
}


class Member:
    """Drafts the text, a number for each place, with this chance for each token. told: it says which are which."""

    needs = taps = frozenset[Any]()

    def __init__(self, chance: Chance, told: bool) -> None:
        self.chance, self.told = chance, told
        self.begin = self.end = self.accepted = lambda *_: None

    def propose(self, seqs: Sequence[SeqView], budget: int) -> list[Draft]:
        drafts = []
        for view in seqs:
            most = min(DEPTH, view.most)
            number, at = int(view.seq), len(view.tokens)
            dice = DICE[number % len(DICE)][at % len(DICE[0])]
            chances = [self.chance(number % 16, at + k) for k in range(most)]
            right = [bool(throw < chance) for throw, chance in zip(dice, chances, strict=False)]
            kinds = [round(10 * chance) for chance in chances] if self.told else []
            drafts.append(Draft.chain([at + k if good else -1 for k, good in enumerate(right)], kinds=kinds))
        return drafts


def race(speculator: Any, cost: Callable[[int], float], batch: int, tokens: int, texts: int = 0) -> float:
    """Seconds a token where so many texts are written, one batch after the other; the first is for learning."""
    rates = []
    for turn in range(texts or (8 if batch == 1 else 3)):
        views = [SeqView(SeqId(16 * turn + i), [0], 0, SamplingParams(max_tokens=tokens + 1)) for i in range(batch)]
        for view in views:
            speculator.begin(view.seq, view.tokens)
        seconds = 0.0
        while views:
            drafts = speculator.propose(views, 512 - len(views))
            outcomes = []
            for view, draft in zip(views, drafts, strict=True):
                at, kept = len(view.tokens), 0
                while kept < min(len(draft.tokens), tokens - at) and draft.tokens[kept] == at + kept:
                    kept += 1
                new = tuple(range(at, at + kept + 1))
                outcomes.append(Accepted(view.seq, new, tuple(range(kept))))
                view.tokens.extend(new)  # type: ignore[attr-defined]
            rows = len(views) + sum(len(draft.tokens) for draft in drafts)
            spent = Spent(ASK_S * len(views), cost(rows), rows, 0)
            seconds += spent.draft_s + spent.pass_s
            speculator.accepted(outcomes, spent)
            for view in views:
                if len(view.tokens) > tokens:
                    speculator.end(view.seq)
            views = [view for view in views if len(view.tokens) <= tokens]
        rates.append(seconds / batch / tokens)
    return statistics.fmean(rates[1:])


class Off(Member):
    def propose(self, seqs: Sequence[SeqView], budget: int) -> list[Draft]:
        return [Draft()] * len(seqs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_auto_keeps_up_with_the_better_of_always_and_never(workload: str, batch: int, shape: str) -> None:
    cost, chance = SHAPES[shape], WORKLOADS[workload]
    for tokens in (24, 96):
        for told in (False, True):
            auto = AutoSpeculator(members="ngram")
            auto.members = [cast(Any, Member(chance, told))]
            better = min(race(one, cost, batch, tokens) for one in (Member(chance, told), Off(chance, told)))
            ratio = better / race(auto, cost, batch, tokens)
            assert ratio > FLOORS.get((workload, batch), 0.97), (tokens, told, ratio)


def test_a_draft_is_worth_what_others_of_its_kind_were() -> None:
    kinds = Kinds()
    before = kinds.chance(1)
    for _ in range(40):
        kinds.saw(1, True)
        kinds.saw(2, False)
    assert kinds.chance(2) < 0.1 < before < 0.9 < kinds.chance(1)
    assert 0.3 < kinds.chance(3) < 0.7  # never seen: as likely as all
    classes = [match_class(same) for same in range(1, 200)]
    assert classes == sorted(classes)
    assert set(classes) == set(range(1, 8))


def test_drafts_longer_than_what_is_left_of_the_text_promise_nothing_more() -> None:
    view = SeqView(SeqId(0), [0] * 30, 10, SamplingParams(max_tokens=24))
    assert view.ahead == 3  # one is read anyway
    assert SeqView(SeqId(0), [0] * 40, 10, SamplingParams(max_tokens=24)).ahead == 0
    auto = AutoSpeculator(members="ngram")
    auto.members = [cast(Any, Member(lambda seq, at: 1.0, True))]
    auto.begin(view.seq, view.tokens)
    for _ in range(20):
        (draft,) = auto.propose([view], 512)
        assert len(draft.tokens) <= 3
        outcome = Accepted(view.seq, (0,) * (len(draft.tokens) + 1), tuple(range(len(draft.tokens))))
        auto.accepted([outcome], Spent(0.0, 0.01, 1 + len(draft.tokens), 0))
    assert draft.tokens


ACCURACY = np.array([[0.5, 0.08, 0.04], [0.4, 0.07, 0.04], [0.36, 0.07, 0.04], [0.34, 0.07, 0.04]], np.float32)


def guess(ratio: float, nodes: int | str, cost: Callable[[int], float], tokens: int = 64, texts: int = 16) -> float:
    """Seconds a token with heads that are right `ratio` times as often as they were when calibrated."""
    guesses, dice, rates = guesses_of("a test", "searched", nodes, ACCURACY, None), np.random.default_rng(3), []

    def best(seqs: Any, states: Floats, depth: int) -> Any:
        return np.arange(3 * depth).reshape(1, depth, 3), np.zeros((1, depth, 3), np.float32)

    for turn in range(texts):
        view = SeqView(SeqId(turn), [0], 1, SamplingParams())
        guesses.begin(view.seq)
        seconds, made = 0.0, 0
        while made < tokens:
            shown = guesses.listening
            (draft,) = guesses.drafts([view], 512, best)
            path, at = list[int](), -1
            for depth in range(len(ACCURACY)):
                rank = int(np.searchsorted(np.cumsum(ratio * ACCURACY[depth]), dice.random()))
                found = [
                    node for node, token in enumerate(draft.tokens)
                    if draft.parents[node] == at and token == 3 * depth + rank and rank < 3
                ]  # fmt: skip
                if not found:
                    break
                path.append(at := found[0])
            rows = 1 + len(draft.tokens)
            states = np.zeros((1, 4), np.float32) if shown or guesses.listening else None
            spent = Spent(0.001 * (rows > 1), cost(rows), rows, 0, states)
            guesses.heard([Accepted(view.seq, (0,) * (1 + len(path)), tuple(path), (), 0)], spent, states)
            made, seconds = made + 1 + len(path), seconds + spent.draft_s + spent.pass_s
        guesses.end(view.seq)
        rates.append(seconds / made)
    return statistics.fmean(rates[1:])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.5, 0.7, 1.0])
def test_trees_keep_up_with_the_best_fixed_size_also_where_little_is_to_be_gained(ratio: float, shape: str) -> None:
    cost = SHAPES[shape]
    better = min(cost(1), *(guess(ratio, nodes, cost) for nodes in (3, 5, 8)))
    assert better / guess(ratio, "auto", cost) > 0.93  # at 0.4 and 0.5 it had given up, for 0.91


def test_one_draft_is_trial_enough_where_even_the_best_would_not_pay() -> None:
    pace = Pace([Likely.chain(4)], 1.05, 64)
    view = SeqView(SeqId(0), [0], 1, SamplingParams())
    pace.begin(view.seq)
    for rows in (1, 2, 3):
        for _ in range(3):
            pace.curve.saw(rows, float(rows))
    drafted = 0
    for _ in range(400):
        awake = pace.awake([view])
        worth = pace.worth(view.seq, 0, 4) if awake else []
        sizes, gain = pace.best([worth], 512, 0.0, [pace.hope(0, len(worth))])
        drafted += sum(pace.settle([view], [0 if awake else -1], [len(worth)], sizes, gain, 512))
        pace.heard([Accepted(view.seq, (0,))], Spent(0.0, 1.0, 1, 0))
    assert drafted <= 2 * (1 + 3) + 2 * 6  # sizes that were measured first; after 16, 32, ... steps


def test_what_only_a_busy_machine_explains_is_not_believed() -> None:
    curve = VerifyCurve()
    for rows, seconds in ((4, 10.0), (20, 20.0), (40, 90.0)):
        curve.saw(rows, seconds)
    assert curve.seconds(40) == 40.0  # no row takes longer than one of 20
    assert curve.seconds(30) == 30.0
    curve.saw(48, 36.0)
    assert curve.seconds(40) == 36.0  # nor a pass than a wider one
    assert curve.seconds(4) == 10.0
