"""`edgewise bench sched|batching|kv`: what they print for other programs, and that their controls are controls."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgewise.base import BadInput
from edgewise.engine.api import StepCost
from edgewise.serve.benches import BENCHES
from edgewise.serve.benches.batching import virtual
from edgewise.serve.benches.kv import counted
from edgewise.serve.benches.sched import split_policies
from edgewise.serve.calibrate import step_cost
from edgewise.serve.drawing import curves, lines
from edgewise.sim.load import Arrival, at_load, load

COST = StepCost(0.022, 0.0035, 0.0036, 0.0)


def ask(capsys: pytest.CaptureFixture[str], bench: str, **options: Any) -> Any:
    BENCHES.load(bench)(**options, as_json=True)
    return json.loads(capsys.readouterr().out)


def sched(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, dict[str, Any]]:
    defaults = {
        "policies": "fcfs,sj-mlfq,auto", "trace": "bimodal", "scale": 4.0, "load": "0.85", "requests": 250, "max_bs": 4,
        "kv_tokens": 1 << 17, "swap_mb_s": 0.0, "rows": 512, "arrivals": "trace", "cost": None, "seed": 0, "ttft": 2.0,
        "tpot": 0.1, "svg": None,
    }  # fmt: skip
    return {row["policy"]: row for row in ask(capsys, "sched", **(defaults | options))}


def test_sched_prints_the_promised_keys_and_equal_tokens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = sched(capsys, svg=tmp_path / "x.svg")
    assert list(rows) == ["fcfs", "sj-mlfq", "auto"]
    for row in rows.values():
        assert {
            "policy", "trace", "load", "jct_mean_s", "jct_p50_s", "jct_p99_s", "ttft_p99_s", "tok_s", "tokens_hash",
        } <= set(row)  # fmt: skip
        assert row["goodput_rps"] > 0
    assert len({row["tokens_hash"] for row in rows.values()}) == 1
    assert rows["sj-mlfq"]["jct_mean_s"] < 0.7 * rows["fcfs"]["jct_mean_s"]
    assert (tmp_path / "x.svg").read_text().startswith("<svg")


def test_feedback_queues_lose_on_plain_lengths_and_auto_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sched(capsys, trace="poisson")
    assert rows["sj-mlfq"]["jct_mean_s"] > 1.1 * rows["fcfs"]["jct_mean_s"]
    assert rows["auto"]["jct_mean_s"] <= 1.05 * rows["fcfs"]["jct_mean_s"]


def test_moving_pages_ahead_of_need_stalls_less(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("sj-mlfq:ahead=True", "sj-mlfq:ahead=False")
    rows = sched(capsys, policies=",".join(names), kv_tokens=2000, swap_mb_s=60.0)
    early, late = (rows[name] for name in names)
    assert early["swapped"] > 0
    assert late["swapped"] > 0
    assert early["stall_s"] < late["stall_s"]
    assert early["tokens_hash"] == late["tokens_hash"]


def test_batching_and_its_control(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[float, float]]] = {"iteration": [], "static": [], "ragged": []}
    found = virtual(load("reasoning", 60, 4), COST, 4, 3.0, 0, seen)
    lines(tmp_path / "x.svg", seen, "reasoning", "rate", "latency", 3 * found["idle_latency_per_token_s"])
    assert (tmp_path / "x.svg").read_text().count("<polyline") == 3
    assert found["ratio"] > 1.8
    assert 1.2 < found["ratio_padding_free"] < found["ratio"]
    assert 0.95 <= found["control"] <= 1.05
    assert found["short_steps"] <= 8
    assert found["tokens_hash"] != "DIFFERENT"


def test_paging_wastes_little_and_holds_more() -> None:
    found = counted("lognormal", 64, 8, 4608)
    assert found["reserved_over_used"] <= 1.10
    assert found["slots_reserved_over_used"] >= 2.5
    assert found["sequences_over_slots"] >= 2


def test_policies_with_settings_are_told_apart() -> None:
    assert split_policies("fcfs,sj-mlfq:swap=released,ahead=False,auto") == [
        "fcfs", "sj-mlfq:swap=released,ahead=False", "auto",
    ]  # fmt: skip
    with pytest.raises(BadInput, match="no policy"):
        split_policies("")


def test_costs_from_four_numbers() -> None:
    assert step_cost("0.1,0.2,0.3,0", 4)[0] == StepCost(0.1, 0.2, 0.3, 0.0)
    with pytest.raises(BadInput, match="four numbers"):
        step_cost("1,2,3,x", 4)


def test_curves_need_no_values(tmp_path: Path) -> None:
    curves(tmp_path / "a.svg", {"empty": [], "one & only": [0.5]}, "t", "s")
    assert "one &amp; only" in (tmp_path / "a.svg").read_text()


def test_load_is_what_it_says() -> None:
    cost = StepCost(0.02, 0.001, 0.001, 0.0)
    paced = at_load([Arrival(float(at), 10, 10) for at in range(101)], 0.5, cost, 4)
    # 10 ms of prefill and ten steps of 20/4 + 1 ms: 70 ms each, one every 140 ms.
    assert paced[-1].at_s == pytest.approx(14.0)
