"""Samplers: the distribution they draw from, its edges, and the streams of random numbers."""

import math

import numpy as np
import pytest

from edgewise.base import SamplingParams
from edgewise.decode.ranking import ranked
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.samplers.standard import distribution, draw, uniform
from edgewise.kernels.api import Floats

VOCAB = 24


def logits(seed: int = 1, vocab: int = VOCAB) -> Floats:
    return (np.random.default_rng(seed).standard_normal(vocab) * 2).astype(np.float32)


def plain(row: Floats, params: SamplingParams) -> dict[int, float]:
    """The same filters, spelled out over a sorted list: temperature → top-k → top-p → min-p, renormalising."""
    scaled = [float(x) / params.temperature for x in row]
    top = max(scaled)
    alive = sorted(((math.exp(s - top), -i) for i, s in enumerate(scaled)), reverse=True)
    if params.top_k > 0:
        alive = alive[: params.top_k]
    total = sum(p for p, _ in alive)
    kept, reached = [], 0.0
    for p, i in alive:
        kept.append((p, i))
        reached += p / total
        if params.top_p < 1 and reached >= params.top_p:
            break
    kept = [(p, i) for p, i in kept if p >= params.min_p * kept[0][0]]
    total = sum(p for p, _ in kept)
    return {-i: p / total for p, i in kept}


CASES = [
    {},
    {"temperature": 0.3},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"temperature": 1.5, "top_k": 8, "top_p": 0.8, "min_p": 0.05},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_filters_match_their_definition(settings: dict[str, float]) -> None:
    params = SamplingParams(**settings)
    for seed in range(20):
        row = logits(seed)
        tokens, weight = distribution(row, params)
        want = plain(row, params)
        assert sorted(tokens.tolist()) == sorted(want)
        assert np.allclose(weight / weight.sum(), [want[t] for t in tokens.tolist()], rtol=1e-9)


def test_top_p_over_a_large_flat_vocabulary() -> None:
    row = np.zeros(20_000, np.float32)  # flat: the nucleus is much larger than the first look
    tokens, _ = distribution(row, SamplingParams(top_p=0.5))
    assert tokens.tolist() == list(range(10_000))


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_draws_follow_the_distribution(settings: dict[str, float]) -> None:
    """χ² over 4000 draws with fixed seeds: this cannot flicker."""
    params, sampler, row, draws = SamplingParams(**settings), SAMPLERS.build("standard"), logits(), 4000
    want = plain(row, params)
    counts = dict.fromkeys(want, 0)
    for position in range(draws):
        counts[sampler.sample(row, params, 7, position)] += 1  # a KeyError is a token that was filtered out
    common = [t for t, p in want.items() if p * draws >= 5]
    chi2 = sum((counts[t] - want[t] * draws) ** 2 / (want[t] * draws) for t in common)
    assert chi2 < len(common) + 4 * math.sqrt(2 * len(common)) + 1


def test_chi2_would_notice_a_wrong_temperature() -> None:
    """The negative control of the test above."""
    sampler, row, draws = SAMPLERS.build("standard"), logits(), 4000
    want = plain(row, SamplingParams(temperature=1.25))
    counts = dict.fromkeys(want, 0)
    for position in range(draws):
        counts[sampler.sample(row, SamplingParams(), 7, position)] += 1
    common = [t for t, p in want.items() if p * draws >= 5]
    chi2 = sum((counts[t] - want[t] * draws) ** 2 / (want[t] * draws) for t in common)
    assert chi2 > len(common) + 4 * math.sqrt(2 * len(common)) + 1


@pytest.mark.parametrize("name", ["greedy", "standard"])
def test_ties_go_to_the_lowest_id(name: str) -> None:
    row = np.array([0, 5, 1, 5, 5], np.float32)
    assert SAMPLERS.build(name).sample(row, SamplingParams(temperature=0), 0, 0) == 1


def test_ties_at_the_edge_of_top_k_keep_the_lowest_id() -> None:
    row = np.array([1, 2, 2, 2, 0], np.float32)
    assert distribution(row, SamplingParams(top_k=2))[0].tolist() == [1, 2]


@pytest.mark.parametrize("size", [200, 8191, 8192, 20_001])
def test_ranked_equals_a_stable_sort(size: int) -> None:
    numbers = np.random.default_rng(0)
    for values in (numbers.integers(0, 99, size).astype(np.float32), numbers.standard_normal(size, np.float32)):
        for count in (1, 3, 50, 256, 513, 5000, size):
            assert ranked(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()
    values = np.full(size, -np.inf, np.float32)
    values[size - 1] = 1
    assert ranked(values, 3).tolist() == [size - 1, 0, 1]


def test_draw_inverts_the_cumulative_sum() -> None:
    weight = np.random.default_rng(0).integers(0, 3, 2000).astype(np.float64)  # whole numbers: sums are exact
    total = int(weight.sum())
    want = np.repeat(np.arange(2000), weight.astype(int))
    got = [draw(weight, (k + 0.5) / total) for k in range(total)]
    assert got == want.tolist()
    assert weight[draw(weight, 0.0)] > 0
    assert weight[draw(weight, 1 - 2**-53)] > 0
    spiky = np.array([1.0, 0.1, 1e-17, 0.0])
    assert draw(spiky, 1 - 2**-53) in (1, 2)


def test_forbidden_tokens_are_never_drawn() -> None:
    row = np.full(VOCAB, -np.inf, np.float32)
    row[[3, 9]] = 0
    sampler = SAMPLERS.build("standard")
    for settings in CASES:
        drawn = {sampler.sample(row, SamplingParams(**settings), 1, position) for position in range(50)}
        assert drawn <= {3, 9}


def test_tiny_temperature_is_greedy() -> None:
    sampler, row = SAMPLERS.build("standard"), logits()
    assert {sampler.sample(row, SamplingParams(temperature=1e-300), 0, p) for p in range(20)} == {int(row.argmax())}


def test_random_numbers_depend_on_seed_and_position_only() -> None:
    first = [uniform(3, position) for position in range(100)]
    assert first == [uniform(3, position) for position in range(100)]
    assert len(set(first)) == 100
    assert all(0 <= u < 1 for u in first)
    assert first != [uniform(4, position) for position in range(100)]
    assert first != [uniform(3 | 1 << 64, position) for position in range(100)]  # the second of n samples
    assert uniform(3, 0) == 0.9342820204007575  # these streams are a promise to users' seeds
