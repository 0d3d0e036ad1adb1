"""Predicted tokens per second: the ends are known, and nothing that helps makes it slower."""

from dataclasses import replace

import pytest

from edgewise.models.forecast import Costs, expert_tokens_s, layer_tokens_s

COSTS = Costs(token_s=0.03, bundle_s=0.0002, first_s=0.004, next_s=0.002, cpu_s=0.0004, threads=2)


def test_with_everything_here_a_token_costs_what_was_measured() -> None:
    assert expert_tokens_s(COSTS, 16, 8, 1.0) == pytest.approx(1 / 0.03)
    assert layer_tokens_s(COSTS, 16, 1.0) == pytest.approx(1 / 0.03)


def test_with_nothing_here_every_layer_waits_for_all_of_its_experts() -> None:
    assert expert_tokens_s(COSTS, 16, 8, 0.0) == pytest.approx(1 / (0.03 + 16 * (0.004 + 7 * 0.002)))
    assert layer_tokens_s(COSTS, 40, 0.0) == pytest.approx(1 / (40 * 0.002))


def test_reading_behind_computing_still_takes_its_processor_time() -> None:
    quick = replace(COSTS, first_s=1e-6, next_s=1e-6)
    assert expert_tokens_s(quick, 16, 8, 0.5) == pytest.approx(1 / (0.03 + 16 * 4 * 0.0002))


def test_more_hits_are_never_slower() -> None:
    for rate in (expert_tokens_s, lambda costs, layers, _, hits: layer_tokens_s(costs, layers, hits)):
        rates = [rate(COSTS, 16, 8, hits / 20) for hits in range(21)]
        assert rates == sorted(rates)
