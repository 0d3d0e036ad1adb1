"""Measured choices, on a clock of our own: the faster one wins, but only with equal bits and by a margin."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.kernels.choices import RANGES, Question, nothing_known, range_name, range_of
from edgewise.plan.choices import Choices
from edgewise.plan.probe import Fingerprint
from edgewise.plan.store import Store

HERE = Fingerprint("a CPU", "x86_64", "f", "L3 32M", 2, "avx2", "b")
ASKED = Question("lookup", "int2:group=64", 64, 128, 3)


class Ticking:
    """A clock that only runs move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: float, result: float = 1.0) -> Callable[[], np.ndarray]:
        def go() -> np.ndarray:
            self.now += seconds
            self.runs.append(name)
            return np.full(3, result, np.float32)

        return go


def test_the_faster_one_is_found_and_remembered(tmp_path: Path) -> None:
    clock = Ticking()
    rivals = {"dot": clock.run("dot", 0.02), "lookup": clock.run("lookup", 0.01)}
    choices = Choices(Store(HERE, tmp_path), clock)
    assert choices.known(ASKED) is None
    assert choices.pick(ASKED, rivals, seconds=0) == "dot"  # measures nothing, knows nothing
    assert not clock.runs
    assert choices.pick(ASKED, rivals) == "lookup"
    clock.runs.clear()
    again = Choices(Store(HERE, tmp_path), clock)
    assert again.pick(ASKED, rivals) == "lookup"
    assert again.known(ASKED._replace(columns=4)) == "lookup"  # the same range of columns
    assert again.known(ASKED._replace(columns=5)) is None
    assert not clock.runs  # the second start measures nothing


def test_they_take_turns(tmp_path: Path) -> None:
    clock = Ticking()
    Choices(Store(HERE, tmp_path), clock).pick(ASKED, {"a": clock.run("a", 0.01), "b": clock.run("b", 0.01)})
    measured = clock.runs[4:]
    assert measured[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]


@pytest.mark.parametrize(("seconds", "best"), [(0.0099, "dot"), (0.009, "lookup"), (0.02, "dot")])
def test_the_default_stays_unless_it_is_beaten_clearly(tmp_path: Path, seconds: float, best: str) -> None:
    clock = Ticking()
    rivals = {"dot": clock.run("dot", 0.01), "lookup": clock.run("lookup", seconds)}
    assert Choices(Store(HERE, tmp_path), clock).pick(ASKED, rivals) == best


def test_other_bits_are_never_chosen(tmp_path: Path) -> None:
    clock = Ticking()
    rivals = {"dot": clock.run("dot", 0.02), "wrong": clock.run("wrong", 0.001, 1.0000001)}
    choices = Choices(Store(HERE, tmp_path), clock)
    assert choices.pick(ASKED, rivals) == "dot"
    assert clock.runs.count("wrong") == 1
    other = ASKED._replace(what="bf16 or int8")
    assert choices.pick(other, rivals, equal=False) == "wrong"


def test_a_stored_name_that_nobody_has_any_more_is_measured_again(tmp_path: Path) -> None:
    clock, store = Ticking(), Store(HERE, tmp_path)
    store.put("choices", {ASKED.key: {"best": "gone"}})
    assert Choices(store, clock).pick(ASKED, {"a": clock.run("a", 0.01), "b": clock.run("b", 0.001)}) == "b"
    store.put("choices", {ASKED.key: {"best": 5}})
    assert Choices(store, clock).known(ASKED) is None
    with pytest.raises(BadInput, match="nothing to choose"):
        Choices(store, clock).pick(ASKED, {})


def test_ranges_of_columns() -> None:
    assert [range_of(n) for n in (1, 2, 3, 4, 5, 8, 9, 64, 65, 5000)] == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [range_name(at) for at in range(len(RANGES) + 1)] == ["1", "2", "3-4", "5-8", "9-64", "65+"]
    assert ASKED.key == "lookup int2:group=64 64x128 n=3-4"
    assert nothing_known(ASKED) is None
