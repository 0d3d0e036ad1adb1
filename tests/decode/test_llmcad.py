"""Token trees of a draft model: the same text, branches where the model is unsure, work while weights are awaited."""

from typing import Any

import pytest

from edgewise.base import BadInput, SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Speculator, Spent, Target
from edgewise.decode.drafting import DraftModel
from edgewise.decode.odds import Odds, RowCost
from edgewise.decode.speculators import SPECULATORS, llmcad
from edgewise.decode.speculators.llmcad import LlmCadSpeculator
from edgewise.kernels.devices import DEVICES
from edgewise.testing.decode_contract import SpeculatorContract, toy_target
from edgewise.testing.toy import ToyModel


class ToyTree(LlmCadSpeculator):
    """Drafts with a toy of the given seed; while each pass runs, `ahead` more passes are made."""

    def __init__(self, seed: int, pages: int = 256, ahead_passes: int = 0, **settings: Any) -> None:
        super().__init__("toy", dtype="f32", **{"gate": False, "alpha": 1e-4, **settings})
        self.seed, self.pages, self.ahead_passes = seed, pages, ahead_passes

    def prepare(self, target: Target) -> int:
        self.use(DraftModel(ToyModel(target.device, seed=self.seed), target.device, self.pages, "f32"), target)
        return 0

    def accepted(self, outcomes: Any, spent: Spent) -> None:
        for _ in range(self.ahead_passes):
            self.meanwhile()
        super().accepted(outcomes, spent)


class TestRightTree(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(0, nodes=9)


class TestWrongTree(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(1, nodes=7)


class TestTreeAhead(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(0, nodes=6, ahead_passes=2)


class TestWrongTreeAhead(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(1, nodes=6, ahead_passes=1, adapt=False)


class TestTreeWithLittleRoom(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(0, pages=9, nodes=6, ahead_passes=1)


class TestGatedTree(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(1, nodes=6, gate=True)


def begun(**settings: Any) -> tuple[ToyTree, SeqView]:
    member = ToyTree(0, **settings)
    member.prepare(toy_target(DEVICES.build("reference")))
    return member, SeqView(SeqId(0), [1, 2, 3, 4], 4, SamplingParams(temperature=0))


def test_what_is_drafted_ahead_begins_the_next_tree() -> None:
    member, view = begun(nodes=4, width=1, adapt=False)
    (first,) = member.propose([view], 4)
    assert first.parents == (-1, 0, 1, 2)
    passes = member._passes
    assert all(member.meanwhile() for _ in range(4))
    tree = member._trees[SeqId(0)]
    chain = [node.token for node in tree.root.below()]
    assert chain[:4] == list(first.tokens)
    member.accepted([Accepted(SeqId(0), tuple(chain[:5]), (0, 1, 2, 3))], Spent(0.1, 1.0, 5, 0))
    view.tokens.extend(chain[:5])  # type: ignore[attr-defined]
    (second,) = member.propose([view], 4)
    assert member._passes < passes
    assert list(second.tokens[: len(chain) - 5]) == chain[5:][:4]
    member.end(SeqId(0))
    assert member._kv.free_tokens() == 256 * 16


def paths(draft: Draft) -> set[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for token, parent in zip(draft.tokens, draft.parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    return set(found)


def test_a_tree_that_was_drafted_ahead_is_the_tree_that_would_be_drafted() -> None:
    trees = []
    for passes in (0, 12):
        member, view = begun(nodes=12, adapt=False, alpha=1e-3)
        member.odds.saw = lambda *_: None  # type: ignore[method-assign]
        (draft,) = member.propose([view], 12)
        for _ in range(passes):
            member.meanwhile()
        unlikely = [t for t in list(member._trees[SeqId(0)].root.kids or ()) if (t,) not in paths(draft)]
        view.tokens.append(unlikely[0] if unlikely else draft.tokens[-1])  # type: ignore[attr-defined]
        trees.append(paths(member.propose([view], 12)[0]))
    assert trees[0] == trees[1]
    assert len(trees[0]) == 12


def test_several_branches_are_computed_in_one_pass_and_given_back() -> None:
    member, view = begun(nodes=12)
    (draft,) = member.propose([view], 12)
    assert len(draft.tokens) == 12
    assert len(set(draft.parents)) < 12  # a tree
    assert member._passes < 12
    tree = member._trees[SeqId(0)]
    for node in tree.root.below():  # every branch holds its own path
        if node.kids is not None:
            assert member._kv.length(node.branch) > node.place
    view.tokens.append(next(t for t in range(60) if t not in (tree.root.kids or ())))  # type: ignore[attr-defined]
    member.propose([view], 3)
    member.end(SeqId(0))
    assert member._kv.free_tokens() == 256 * 16


def test_a_prompt_longer_than_a_chunk_is_drafted_for_at_once() -> None:
    member, view = begun(nodes=3)
    view.tokens.extend([5] * 100)  # type: ignore[attr-defined]
    llmcad.CHUNK, was = 16, llmcad.CHUNK
    try:
        (draft,) = member.propose([view], 3)
    finally:
        llmcad.CHUNK = was
    assert len(draft.tokens) == 3
    assert paths(draft) == paths(begun_at(view).propose([view], 3)[0])


def begun_at(view: SeqView) -> ToyTree:
    member = ToyTree(0, nodes=3)
    member.prepare(toy_target(DEVICES.build("reference")))
    return member


def test_the_thresholds_follow_what_rows_and_drafting_cost() -> None:
    member, view = begun(nodes=4)
    assert member.thresholds() == (1e-4, 1e-4)

    def after(draft_s: float, row_s: float) -> tuple[float, float]:
        for rows in (2, 30) * 40:
            member.propose([view], 4)
            member.accepted([Accepted(SeqId(0), (1, 2), (0,))], Spent(draft_s, 1 + row_s * rows, rows, 0))
            view.tokens.append(7)  # type: ignore[attr-defined]
        return member.thresholds()

    cheap = after(1e-6, 1e-4)
    dear = after(0.2, 0.02)
    assert llmcad.LEAST <= cheap[0] < 0.003
    assert 0.012 < dear[0] < 0.05  # about 1.6 tokens a second, 0.02 s a row
    assert dear[1] > 0.01 > cheap[1]


def test_odds_are_learned() -> None:
    odds = Odds()
    key = odds.key(0, 0.3)
    assert key == odds.key(0, 0.29) != odds.key(1, 0.3) != odds.key(2, 0.3)
    assert odds.key(2, 0.3) == odds.key(5, 0.3)
    before = odds.chance(key, 0.3)
    for at in range(2000):
        odds.saw([key, odds.key(1, 0.1)], 0 if at % 10 else -1)
    assert before < 0.65
    assert abs(odds.chance(key, 0.3) - 0.9) < 0.02
    assert odds.chance(odds.key(1, 0.1), 0.1) < 0.01
    assert odds.chance(odds.key(0, 0.0), 0.0) > 0
    for _ in range(300):
        odds.saw([key], -1)
    assert odds.chance(key, 0.3) < 0.4  # what was long ago counts less


def test_what_a_row_costs_is_a_slope() -> None:
    row = RowCost()
    assert row.seconds == 0
    row.saw(1, 1.0)
    assert 0 < row.seconds < 0.01
    for rows in (20, 5, 60, 33, 41) * 12:
        row.saw(rows, 1 + 0.01 * rows + (0.05 if rows % 2 else -0.05))
    row.saw(30, 900.0)  # a disk that stalls
    assert abs(row.seconds - 0.01) < 0.003
    for rows in (20, 60) * 50:
        row.saw(rows, 1.0)
    assert row.seconds < 0.001


@pytest.mark.parametrize("text", ["", ":model=x,nodes=0", ":model=x,width=0", ":model=x,alpha=1"])
def test_senseless_settings_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="llmcad"):
        SPECULATORS.build(f"llmcad{text}")
