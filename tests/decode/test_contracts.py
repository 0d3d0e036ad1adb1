"""Every member of decode's catalogs keeps its slot's contract."""

from dataclasses import replace
from typing import Any

from edgewise.base import SamplingParams, SeqId
from edgewise.decode.api import LogitsRule, Sampler, SeqView, Speculator, Target
from edgewise.decode.drafting import DraftModel
from edgewise.decode.rules.allowed import Allowed
from edgewise.decode.rules.bias import Bias
from edgewise.decode.rules.min_tokens import MinTokens
from edgewise.decode.rules.none import NoRule
from edgewise.decode.rules.penalties import Penalties
from edgewise.decode.samplers.greedy import GreedySampler
from edgewise.decode.samplers.standard import StandardSampler
from edgewise.decode.speculators.auto import AutoSpeculator
from edgewise.decode.speculators.draft import DraftModelSpeculator
from edgewise.decode.speculators.ngram import NgramSpeculator
from edgewise.decode.speculators.none import NoSpeculator
from edgewise.decode.speculators.suffix import SuffixSpeculator
from edgewise.kernels.devices import DEVICES
from edgewise.testing.decode_contract import RuleContract, SamplerContract, SpeculatorContract, toy_target
from edgewise.testing.toy import ToyModel


class TestGreedy(SamplerContract):
    def make(self) -> Sampler:
        return GreedySampler()


class TestStandard(SamplerContract):
    def make(self) -> Sampler:
        return StandardSampler()


class TestNoRule(RuleContract):
    def make(self) -> LogitsRule:
        return NoRule()


class TestPenalties(RuleContract):
    def make(self) -> LogitsRule:
        return Penalties(1.2, 0.5, 0.25)


class TestBias(RuleContract):
    def make(self) -> LogitsRule:
        return Bias({3: 1.5, 4: float("-inf")})


class TestAllowed(RuleContract):
    def make(self) -> LogitsRule:
        return Allowed([4, 7])


class TestMinTokens(RuleContract):
    def make(self) -> LogitsRule:
        return MinTokens(2, {3, 8})


class TestNoSpeculator(SpeculatorContract):
    def make(self) -> Speculator:
        return NoSpeculator()


class TestNgram(SpeculatorContract):
    def make(self) -> Speculator:
        return NgramSpeculator(n=2)


class TestSuffix(SpeculatorContract):
    def make(self) -> Speculator:
        return SuffixSpeculator(n=1, room=96)


class ToyDraft(DraftModelSpeculator):
    """Drafts with a toy of the given seed: the target's own weights, or others. Room for `pages` pages."""

    def __init__(self, seed: int, pages: int, **settings: Any) -> None:
        super().__init__("toy", dtype="f32", **settings)
        self.seed, self.room = seed, pages

    def prepare(self, target: Target) -> int:
        self.use(DraftModel(ToyModel(target.device, seed=self.seed), target.device, self.room, "f32"), target)
        return 0


class TestDraft(SpeculatorContract):
    """The target's own weights: everything comes true."""

    def make(self) -> Speculator:
        return ToyDraft(0, 64)

    def test_every_greedy_token_comes_true(self) -> None:
        member = self.make()
        kept: list[tuple[int, int]] = []
        member.accepted = lambda outcomes, spent: kept.extend(  # type: ignore[method-assign]
            (len(outcome.nodes), len(outcome.tokens)) for outcome in outcomes
        )
        self.run(member, "match")
        assert max(kept) == (4, 5)
        assert sum(tokens for _, tokens in kept) == 120
        assert len(kept) == 4 * 7  # the prompt's token, five passes of five, what is left


class TestDraftWithLittleRoom(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyDraft(0, 6, depth=3, least=0.05)


class TestWrongDraft(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyDraft(1, 64)


class TestDrawnDraft(SpeculatorContract):
    verifier = "rejection"

    def make(self) -> Speculator:
        return ToyDraft(1, 64)

    def test_drawn_drafts_give_whole_samples(self) -> None:
        member = self.make()
        member.prepare(replace(toy_target(DEVICES.build("reference")), odds=True))
        view = SeqView(SeqId(0), [1, 2, 3], 3, SamplingParams(temperature=1.0), 7)
        (draft,) = member.propose([view], 3)
        assert len(draft.tokens) == len(draft.odds) == 3
        assert all(abs(float(odd.sum()) - 1) < 1e-9 for odd in draft.odds)
        again = self.make()
        again.prepare(replace(toy_target(DEVICES.build("reference")), odds=True))
        assert again.propose([view], 3)[0].tokens == draft.tokens  # the seed decides


class TestAuto(SpeculatorContract):
    def make(self) -> Speculator:
        return AutoSpeculator("ngram+suffix", depth=5, plain=4)


class TestSuffixTree(SpeculatorContract):
    def make(self) -> Speculator:
        return SuffixSpeculator(n=1, depth=7, width=3, alpha=4.0, least=0.01)


class TestDraftTree(SpeculatorContract):
    def make(self) -> Speculator:
        return ToyDraft(1, 64, width=3, depth=3)


class TestDrawnTree(SpeculatorContract):
    verifier = "rejection"

    def make(self) -> Speculator:
        return ToyDraft(1, 64, width=2, depth=3)


class TestDraftWindow(SpeculatorContract):
    """It sees the last tokens only, and reads them in small chunks."""

    def make(self) -> Speculator:
        return ToyDraft(0, 64, window=24, chunk=7, depth=3)

    def test_a_window_drafts_on_where_the_text_is_longer(self) -> None:
        member = self.make()
        kept: list[int] = []
        member.accepted = lambda outcomes, spent: kept.extend(  # type: ignore[method-assign]
            len(outcome.nodes) for outcome in outcomes
        )
        self.run(member, "match")
        assert sum(kept) > 5, kept
