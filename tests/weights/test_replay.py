"""Replaying a trace: nobody beats Belady, everybody beats chance where there is something to know."""

import math

import numpy as np
import pytest

from edgewise.weights.replay import belady, entropy, hit_rate, uniform
from edgewise.weights.residency import RESIDENCIES

EXPERTS, LAYERS, CHOSEN = 16, 3, 2


@pytest.fixture(scope="module")
def accesses():
    """Every layer has favourites, which change slowly."""
    draw, made = np.random.default_rng(2), []
    for token in range(300):
        for layer in range(LAYERS):
            weights = np.exp(-0.35 * ((np.arange(EXPERTS) + token // 60 + layer) % EXPERTS))
            chosen = draw.choice(EXPERTS, CHOSEN, replace=False, p=weights / weights.sum())
            made.append([layer * EXPERTS + int(e) for e in chosen])
    return made


def rate(name, accesses, slots):
    return hit_rate(accesses, slots, RESIDENCIES.build(name, count=EXPERTS * LAYERS))


@pytest.mark.parametrize("slots", [6, 12, 24, 40])
@pytest.mark.parametrize("name", ["lru", "lfu"])
def test_between_chance_and_the_optimum(accesses, name, slots) -> None:
    share = slots / (EXPERTS * LAYERS)
    assert share < rate(name, accesses, slots) <= belady(accesses, slots)
    assert abs(rate(name, uniform(accesses, EXPERTS), slots) - share) < 0.12


def test_edges(accesses) -> None:
    count = EXPERTS * LAYERS
    first = len({key for access in accesses for key in access}) / sum(map(len, accesses))
    assert belady(accesses, count) == rate("lru", accesses, count) == pytest.approx(1 - first)
    assert rate("none", accesses, count) == 0.0
    assert belady([], 3) == hit_rate([], 3, RESIDENCIES.build("lru")) == 0.0
    assert rate("lru", [[0, 1], [0, 1]], 1) <= 0.5  # two at once where there is room for one


def test_belady_by_hand() -> None:
    order = [[key] for key in (0, 1, 2, 0, 1, 3, 0, 1)]
    assert belady(order, 2) == 4 / 8  # 0 and 1 stay, 2 and 3 pass through
    assert belady([[0], [1], [0], [1]], 1) == 1 / 4  # keeping the first serves one of them twice at best


def test_entropy() -> None:
    even = [[key] for key in range(EXPERTS)] * 4
    assert entropy(even, EXPERTS) == pytest.approx(math.log2(EXPERTS))
    assert entropy([[3]] * 9, EXPERTS) == 0.0
