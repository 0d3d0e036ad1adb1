"""auto under numbers made for the test: deep where drafts come true and rows are cheap, and else it steps aside."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, SamplingParams, SeqId, Unsupported
from edgewise.decode.api import Accepted, Draft, SeqView, Spent
from edgewise.decode.curve import VerifyCurve, best_sizes
from edgewise.decode.speculators.auto import AutoSpeculator

LINEAR = {n: 1.0 + 0.1 * (n - 1) for n in range(1, 65)}


def play(
    chance: float, cost: Callable[[int], float], steps: int, batch: int = 1, draft_s: float = 0.0
) -> tuple[float, int]:
    """Tokens a second with auto over those without, and nodes drafted, where tokens come true with this chance."""
    auto = AutoSpeculator(members="ngram")
    views = [SeqView(SeqId(i), [1, 2, 3, 4] * 8, 8, SamplingParams(max_tokens=None)) for i in range(batch)]
    for view in views:
        auto.begin(view.seq, view.tokens)
    dice, tokens, seconds, nodes = np.random.default_rng(1), 0, 0.0, 0
    for _ in range(steps):
        drafts = auto.propose(views, 512)
        outcomes = []
        for view, draft in zip(views, drafts, strict=True):
            kept = 0
            while kept < len(draft.tokens) and dice.random() < chance:
                kept += 1
            outcomes.append(Accepted(view.seq, (0,) * (kept + 1), tuple(range(kept)), ()))
            tokens += kept + 1
        rows = batch + sum(len(draft.tokens) for draft in drafts)
        nodes += rows - batch
        spent = Spent(draft_s * (rows > batch), cost(rows), rows, 0)
        seconds += spent.pass_s + spent.draft_s
        auto.accepted(outcomes, spent)
    return tokens / seconds * cost(batch) / batch, nodes


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("slope", [0.02, 0.3, 1.0])
def test_wrong_drafts_cost_a_twentieth_at_most(batch: int, slope: float) -> None:
    gain, nodes = play(0.0, lambda rows: 1.0 + slope * (rows - 1), 400, batch)
    assert gain > 0.95
    assert nodes > 0  # it did try


def test_good_drafts_go_deep_where_rows_are_cheap() -> None:
    gain, _ = play(0.95, lambda rows: 1.0 + 0.02 * (rows - 1), 400)
    assert gain > 4
    some, _ = play(0.8, lambda rows: 1.0 + 0.2 * (rows - 1), 400)
    assert 1.3 < some < gain


def test_drafts_that_cannot_pay_are_left() -> None:
    gain, nodes = play(0.9, lambda rows: float(rows), 500)  # a row costs what it brings, at best
    assert gain > 0.97
    assert nodes < 60
    gain, nodes = play(0.95, lambda rows: 1.0 + 0.02 * (rows - 1), 500, draft_s=9.0)  # drafting itself is too slow
    assert nodes < 1500


def test_depths_are_the_best_there_are() -> None:
    curve = VerifyCurve()
    for rows, seconds in LINEAR.items():
        curve.saw(rows, seconds)
    for chances in ([0.9], [0.5], [0.9, 0.2], [0.7, 0.7, 0.0]):
        worths = [[chance**deep for deep in range(1, 7)] for chance in chances]
        depths, gain = best_sizes(curve, worths, 100, 0.1, 0.05)
        plain = curve.seconds(len(chances)) / len(chances)

        def rate(deep: tuple[int, ...], chances: list[float] = chances) -> float:
            made = [1 + sum(c**k for k in range(1, d + 1)) for c, d in zip(chances, deep, strict=True)]
            tokens: float = sum(np.sqrt(made)) ** 2 / len(chances)  # better for many than much for one
            if not any(deep):
                return tokens / curve.seconds(len(chances))
            return tokens / (curve.seconds(len(chances) + sum(deep)) + 0.1 + 0.05 * max(deep))

        every = max(rate(deep) for deep in np.ndindex(*[7] * len(chances)))
        assert rate(tuple(depths)) == pytest.approx(every, rel=0.02)
        assert gain == pytest.approx(rate(tuple(depths)) * plain)


def test_the_curve_between_and_beyond_what_was_measured() -> None:
    curve = VerifyCurve()
    assert curve.seconds(3) == 0
    curve.saw(1, 1.0)
    assert 1.0 < curve.seconds(5) < 1.5
    curve.saw(5, 2.0)
    assert curve.seconds(3) == pytest.approx(1.5)
    assert curve.seconds(9) == pytest.approx(3.0)
    for _ in range(3):
        curve.saw(5, 2.0)
    curve.saw(5, 1000.0)
    assert curve.seconds(5) == 2.0  # one wild step changes nothing


def test_a_draft_is_cut_to_its_depth_with_its_odds() -> None:
    from edgewise.decode.speculators.auto import _cut

    odd = np.ones(3) / 3
    assert _cut(Draft.chain([1, 2, 3], [odd] * 3), 2) == Draft.chain([1, 2], [odd] * 2)
    assert _cut(Draft.chain([1, 2]), 0) == Draft()


def test_what_auto_is_not_made_of_is_refused() -> None:
    with pytest.raises(Unsupported, match="ngrm"):
        AutoSpeculator(members="ngrm+suffix")
    with pytest.raises(BadInput, match="needs members"):
        AutoSpeculator(members="")
    with pytest.raises(BadInput, match="depth=0"):
        AutoSpeculator(depth=0)


class Chains:
    """Drafts the text as it will be, or something else."""

    needs = taps = frozenset[Any]()

    def __init__(self, right: Callable[[int], bool]) -> None:
        self.right, self.asked = right, 0
        self.prepare: Callable[[Any], int] = lambda target: 0
        self.begin = self.end = self.accepted = lambda *_: None

    def propose(self, seqs: Sequence[SeqView], budget: int) -> list[Draft]:
        self.asked += 1
        now = [len(view.tokens) for view in seqs]
        return [Draft.chain([at + k if self.right(at) else -1 for k in range(4)]) for at in now]


def follow(members: Sequence[Any], steps: int, ask_s: float) -> list[tuple[int, int]]:
    """A text that counts its own tokens: of each step nodes drafted and nodes that came true. Rows cost a tenth."""
    auto = AutoSpeculator()
    auto.members = list(members)
    tokens = list(range(8))
    view = SeqView(SeqId(0), tokens, 8, SamplingParams(max_tokens=None))
    auto.begin(view.seq, tokens)
    seen = []
    for _ in range(steps):
        before = sum(member.asked for member in members)
        (draft,) = auto.propose([view], 512)
        kept = 0
        while kept < len(draft.tokens) and draft.tokens[kept] == len(tokens) + kept:
            kept += 1
        new = tuple(range(len(tokens), len(tokens) + kept + 1))
        tokens += new
        looked = ask_s * (sum(member.asked for member in members) - before)
        spent = Spent(looked, 1.0 + 0.1 * len(draft.tokens), 1 + len(draft.tokens), 0)
        auto.accepted([Accepted(view.seq, new, tuple(range(kept)), ())], spent)
        seen.append((len(draft.tokens), kept))
    return seen


def test_of_cheap_members_the_one_drafts_whose_chains_come_true_whatever_their_order() -> None:
    right, wrong = Chains(lambda at: True), Chains(lambda at: False)
    for members in ((right, wrong), (wrong, right)):
        assert sum(kept for _, kept in follow(members, 60, 0.001)) > 200  # of 240


def test_a_sequence_that_is_left_alone_is_drafted_for_as_soon_as_drafts_would_come_true() -> None:
    turns = [follow([Chains(lambda at: at > 300)] * 2, 700, ask_s) for ask_s in (0.0001, 0.2)]
    first = [next(at for at, (_, kept) in enumerate(seen) if kept) for seen in turns]
    assert first[0] < 320 < first[1]  # nobody watches where asking is dear: it waits for its turn
    assert sum(nodes for nodes, _ in turns[0][:280]) < 40


@pytest.mark.parametrize("better", [True, False])
def test_of_two_ways_the_better_one_is_taken_and_the_other_tried_ever_more_seldom(better: bool) -> None:
    from edgewise.decode.curve import Rival

    rival, taken = Rival(), []
    for _ in range(4000):
        taken.append(rival.first)
        rival.saw(2.0 if rival.first == better else 1.5, 1.0)
    assert sum(way == better for way in taken) > 0.97 * len(taken)
    assert any(way != better for way in taken[-1100:])
    swapped = []
    for _ in range(4000):  # the other one becomes the better one
        swapped.append(rival.first)
        rival.saw(1.5 if rival.first == better else 2.0, 1.0)
    assert sum(way != better for way in swapped[-1000:]) > 900
