"""Recall of guesses over a made-up trace, counted by hand."""

import pytest

from edgewise.weights.guessing import recall

CHOSEN = [{0: [0, 1], 1: [2, 3], 2: [4, 5]}, {0: [0, 1], 1: [2, 7], 2: [6, 7]}]


def test_recall_counts_what_was_wanted_among_the_guessed() -> None:
    guessed = [{0: [2, 3, 9], 1: [4, 0]}, {0: [7, 2], 1: [0, 1]}]
    found = recall(CHOSEN, guessed, experts=16, most=2)
    assert found is not None
    assert found.lookahead == pytest.approx((2 + 1 + 2 + 0) / 8)
    assert found.previous == pytest.approx(1 / 4)
    assert found.chance == 2 / 16


def test_shuffled_guesses_know_nothing() -> None:
    chosen = [{0: [0], 1: [turn % 16]} for turn in range(320)]
    found = recall(chosen, [{0: [turn % 16]} for turn in range(320)], experts=16, most=1)
    assert found is not None
    assert found.lookahead == 1.0
    assert found.shuffled <= 0.2


def test_without_guesses_there_is_nothing_to_say() -> None:
    assert recall(CHOSEN, [{}, {}], experts=16, most=2) is None
