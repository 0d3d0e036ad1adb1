"""Candidates: few, all different, and none of them the standard."""

import itertools

import pytest

from edgewise.kernels.tuning import Matmul
from edgewise.plan.candidates import MOST, candidates, everything

STANDARD = {"ahead": 9216, "columns": 8, "blocks": 2, "chunk": 384 << 10, "share": 512 << 10, "cut": 2, "threads": 0,
            "wake": 1 << 16}  # fmt: skip
SHAPES = ((64, 32), (2048, 2048), (128256, 2048))


@pytest.mark.parametrize("fmt", ["Q4_0", "Q6_K", "BF16", "F32", "int2:group=64"])
def test_they_are_few_and_differ(fmt: str) -> None:
    for (rows, cols), at, threads in itertools.product(SHAPES, range(6), (1, 2, 16)):
        found = candidates(Matmul(fmt, rows, cols, at), STANDARD, threads)
        assert 1 <= len(found) <= MOST or (threads == 1 and at == 0)
        assert len({tuple(sorted(knobs.items())) for knobs in found}) == len(found)
        for knobs in found:
            assert knobs
            assert all(STANDARD[name] != value for name, value in knobs.items())


def test_what_cannot_matter_is_not_asked() -> None:
    names = [set().union(*candidates(Matmul("Q4_0", 2048, 2048, at), STANDARD, 16)) for at in range(6)]
    assert "columns" not in names[0]
    assert "columns" in names[1]
    assert "chunk" not in names[3]
    assert {"chunk", "share"} <= names[5]
    assert "threads" in names[0]
    floats = set().union(*candidates(Matmul("BF16", 4096, 2048, 0), STANDARD, 2))
    assert floats == {"cut"}
    small = candidates(Matmul("BF16", 64, 1024, 0), STANDARD, 2)
    assert "wake" not in set().union(*small)  # what a matmul alone cannot tell


@pytest.mark.parametrize("fmt", ["Q4_0", "BF16"])
def test_everything_holds_what_the_rules_choose_and_more(fmt: str) -> None:
    for at in range(6):
        matmul = Matmul(fmt, 2048, 2048, at)
        few, all_ = candidates(matmul, STANDARD, 2), everything(matmul, STANDARD, 2)
        assert all_[: len(few)] == few
        assert len({tuple(sorted(knobs.items())) for knobs in all_}) == len(all_)
        assert all(STANDARD[name] != value for knobs in all_ for name, value in knobs.items())
    assert len(everything(Matmul("Q4_0", 2048, 2048, 3), STANDARD, 2)) > MOST
