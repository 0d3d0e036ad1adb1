"""Token trees of a draft model: the same text, branches where the model is unsure, work while weights are awaited."""

from typing import Any

import pytest

from edgewise.base import BadInput, SamplingParams, SeqId
from edgewise.decode.api import Accepted, SeqView, Speculator, Spent, Target
from edgewise.decode.drafting import DraftModel
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.llmcad import LlmCadSpeculator
from edgewise.kernels.devices import DEVICES
from edgewise.testing.decode_contract import SpeculatorContract, toy_target
from edgewise.testing.toy import ToyModel


class ToyTree(LlmCadSpeculator):
    """Drafts with a toy of the given seed; while each pass runs, `ahead` more passes are made."""

    def __init__(self, seed: int, pages: int = 256, ahead_passes: int = 0, **settings: Any) -> None:
        super().__init__("toy", dtype="f32", **{"gate": False, "split": 0.02, "alpha": 1e-4, **settings})
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
        return ToyTree(0, nodes=6, ahead_passes=5)


class TestWrongTreeAhead(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(1, nodes=6, ahead_passes=4, adapt=False)


class TestTreeWithLittleRoom(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(0, pages=9, nodes=6, ahead_passes=3)


class TestGatedTree(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyTree(1, nodes=6, gate=True)


def begun(**settings: Any) -> tuple[ToyTree, SeqView]:
    member = ToyTree(0, **settings)
    member.prepare(toy_target(DEVICES.build("reference")))
    return member, SeqView(SeqId(0), [1, 2, 3, 4], 4, SamplingParams(temperature=0))


def test_what_is_drafted_ahead_begins_the_next_tree() -> None:
    member, view = begun(nodes=4, split=1.0)
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


def test_unsure_models_branch_and_branches_are_given_back() -> None:
    member, view = begun(nodes=12)
    (draft,) = member.propose([view], 12)
    assert len(draft.tokens) == 12
    assert len(set(draft.parents)) < 12  # a tree
    chances = [node.chance for node in sorted(member._trees[SeqId(0)].root.below(), key=lambda n: -n.chance)]
    assert chances == sorted(chances, reverse=True)
    view.tokens.append(59 if 59 not in draft.tokens else 58)  # type: ignore[attr-defined]  # nobody thought of it
    member.propose([view], 3)
    member.end(SeqId(0))
    assert member._kv.free_tokens() == 256 * 16


def test_the_threshold_falls_with_success_and_rises_with_errors() -> None:
    member, view = begun(nodes=4, alpha=0.01)
    (draft,) = member.propose([view], 4)
    tree = member._trees[SeqId(0)]
    deepest = tree.deepest
    member.accepted([Accepted(SeqId(0), (1,) * (deepest + 1), tuple(range(deepest)))], Spent(1e-9, 1.0, 5, 0))
    assert tree.alpha <= 0.005
    before = tree.alpha
    view.tokens.append(draft.tokens[0])  # type: ignore[attr-defined]
    member.propose([view], 4)
    tree.surest = 0.01
    member._level_s = 1.0  # drafting is dear
    member.accepted([Accepted(SeqId(0), (1,), ())], Spent(1.0, 1.0, 5, 0))
    assert tree.alpha > before


@pytest.mark.parametrize("text", ["", ":model=x,nodes=0", ":model=x,split=0", ":model=x,alpha=1"])
def test_senseless_settings_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="llmcad"):
        SPECULATORS.build(f"llmcad{text}")
