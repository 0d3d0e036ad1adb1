"""What every tuner must do. Subclass in a test file and implement `make`."""

from collections.abc import Callable, Sequence

import numpy as np

from edgewise.plan.api import Knobs, Reading, Tuner

Times = Callable[[Knobs, np.random.Generator], float]  # seconds of a candidate, noise included
CANDIDATES: list[Knobs] = [{"a": i} for i in range(20)]
MOST_QUESTIONS = 5000


class TunerContract:
    FINDS = True  # a candidate that is clearly faster

    def make(self, candidates: Sequence[Knobs]) -> Tuner:
        raise NotImplementedError

    def play(self, tuner: Tuner, times: Times, seed: int = 0, bad: Sequence[Knobs] = ()) -> list[Knobs]:
        """Answers its questions until it asks no more; the questions."""
        numbers = np.random.default_rng(seed)
        asked: list[Knobs] = []
        while (knobs := tuner.ask()) is not None:
            asked.append(knobs)
            assert len(asked) < MOST_QUESTIONS, "it never makes up its mind"
            default_s = times({}, numbers)
            tuner.tell(knobs, None if knobs in bad else Reading(times(knobs, numbers), default_s))
        return asked

    @staticmethod
    def noisy(fast: dict[int, float], spread: float = 0.05) -> Times:
        """Seconds by the value of "a"; 1 otherwise. One sample in twenty takes three times as long."""

        def times(knobs: Knobs, numbers: np.random.Generator) -> float:
            late = 3.0 if numbers.random() < 0.05 else 1.0
            return fast.get(knobs.get("a", -1), 1.0) * late * float(np.exp(numbers.normal() * spread))

        return times

    def test_it_finds_one_that_is_clearly_faster(self) -> None:
        for seed in range(10):
            tuner = self.make(CANDIDATES)
            assert tuner.best() == {}  # before anything is known
            self.play(tuner, self.noisy({7: 0.7, 3: 1.4}), seed)
            assert tuner.best() == ({"a": 7} if self.FINDS else {})

    def test_it_is_never_worse_than_the_default(self) -> None:
        """Among equals and losers, nobody that is more than 2 % slower is ever chosen."""
        for seed in range(40):
            tuner = self.make(CANDIDATES)
            slow = {i: 1.0 + (i % 5) * 0.01 for i in range(20)}
            self.play(tuner, self.noisy(slow, 0.1), seed)
            assert slow.get(tuner.best().get("a", -1), 1.0) <= 1.02

    def test_noise_alone_rarely_replaces_the_default(self) -> None:
        changed = 0
        for seed in range(40):
            tuner = self.make(CANDIDATES)
            self.play(tuner, self.noisy({}, 0.1), seed)
            changed += tuner.best() != {}
        assert changed <= 4

    def test_who_was_refused_is_not_asked_for_again(self) -> None:
        tuner = self.make(CANDIDATES)
        bad = [{"a": 7}, {"a": 0}, {"a": 19}]
        asked = self.play(tuner, self.noisy({7: 0.1, 4: 0.7}), bad=bad)
        assert all(asked.count(knobs) <= 1 for knobs in bad)
        assert tuner.best() == ({"a": 4} if self.FINDS else {})
        everyone = self.make(CANDIDATES)
        self.play(everyone, self.noisy({}), bad=CANDIDATES)
        assert everyone.best() == {}

    def test_it_can_be_replayed(self) -> None:
        times = self.noisy({2: 0.9})
        assert self.play(self.make(CANDIDATES), times) == self.play(self.make(CANDIDATES), times)

    def test_it_says_how_much_is_left(self) -> None:
        tuner, numbers, times = self.make(CANDIDATES), np.random.default_rng(0), self.noisy({2: 0.8})
        while (knobs := tuner.ask()) is not None:
            before = tuner.left()
            assert before >= 1
            tuner.tell(knobs, Reading(times(knobs, numbers), times({}, numbers)))
            assert tuner.left() < before
        assert tuner.left() == 0

    def test_nothing_to_choose_from(self) -> None:
        tuner = self.make([])
        assert tuner.ask() is None
        assert tuner.best() == {}
        assert tuner.left() == 0
