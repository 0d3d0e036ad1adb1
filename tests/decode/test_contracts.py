"""Every member of decode's catalogs keeps its slot's contract."""

from edgewise.decode.api import LogitsRule, Sampler, Speculator
from edgewise.decode.rules.allowed import Allowed
from edgewise.decode.rules.bias import Bias
from edgewise.decode.rules.min_tokens import MinTokens
from edgewise.decode.rules.none import NoRule
from edgewise.decode.rules.penalties import Penalties
from edgewise.decode.samplers.greedy import GreedySampler
from edgewise.decode.samplers.standard import StandardSampler
from edgewise.decode.speculators.ngram import NgramSpeculator
from edgewise.decode.speculators.none import NoSpeculator
from edgewise.decode.speculators.suffix import SuffixSpeculator
from edgewise.testing.decode_contract import RuleContract, SamplerContract, SpeculatorContract


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
