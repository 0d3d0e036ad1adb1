"""Every tuner keeps the contract."""

from collections.abc import Sequence

from edgewise.plan.api import Knobs, Reading, Tuner
from edgewise.plan.duel import gain_of, won
from edgewise.plan.tuners import LONGEST, TUNERS, USUAL
from edgewise.testing.tuner_contract import CANDIDATES, TunerContract


class TestNone(TunerContract):
    FINDS = False

    def make(self, candidates: Sequence[Knobs]) -> Tuner:
        return TUNERS.build("none", candidates=candidates)


class TestHalving(TunerContract):
    def make(self, candidates: Sequence[Knobs]) -> Tuner:
        return TUNERS.build("halving", candidates=candidates)

    def test_it_asks_less_than_the_exhaustive_one(self) -> None:
        times = self.noisy({5: 0.8, 6: 0.85, 7: 1.3})
        few = len(self.play(self.make(CANDIDATES), times))
        assert few < len(self.play(TUNERS.build(LONGEST, candidates=CANDIDATES), times)) / 2

    def test_a_winner_of_the_rounds_that_loses_the_duel_is_not_taken(self) -> None:
        tuner = TUNERS.build(USUAL, candidates=[{"a": 0}], duel=5)
        while tuner.ask() is not None:
            tuner.tell({"a": 0}, Reading(1.0, 1.01))  # faster, but by less than 2 %
        assert tuner.best() == {}


class TestExhaustive(TunerContract):
    def make(self, candidates: Sequence[Knobs]) -> Tuner:
        return TUNERS.build("exhaustive", candidates=candidates)

    def test_everyone_is_measured_equally_often(self) -> None:
        tuner = TUNERS.build("exhaustive:rounds=4,finals=1,duel=3", candidates=CANDIDATES)
        asked = self.play(tuner, self.noisy({2: 0.5}))
        assert [asked.count(knobs) for knobs in CANDIDATES] == [7 if knobs["a"] == 2 else 4 for knobs in CANDIDATES]


def test_a_duel_needs_a_margin_and_most_of_its_pairs() -> None:
    assert won([1.03] * 8)
    assert not won([1.019] * 8)
    assert not won([1.2] * 5 + [0.9] * 3)
    assert not won([])
    assert gain_of([]) == 0
