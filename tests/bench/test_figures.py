"""From pairs to figures: order of the runs, states of the bandwidth, GB/s, GOPS and shares of the roof."""

import json
import math
import shutil
import subprocess

import numpy as np
import pytest
from small import tiny

from race.peers import Model
from race.results import finish, speed_result
from race.roofs import Probe, compiled, divide, state
from race.rounds import DEPTHS, curve, interleave, speeds, times
from race.subjects import Subject, Trial
from race.tables import text


def probe(gb_s=40.0):
    return Probe(gb_s, gb_s, 900.0, 450.0, 60.0)


def test_pairs_alternate_and_the_ratio_is_of_each_pair():
    order = []

    def runs(name, rates):
        return lambda i: order.append(name) or {"tok_s": rates[i]}

    states = iter([40.0, 41.0, 60.0, 61.0])
    rows = interleave("tg", ("a", "b"), (runs("a", [2, 3, 8]), runs("b", [1, 2, 2])), 3, lambda: probe(next(states)))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [row["ratio"] for row in rows] == [2, 1.5, 4]
    assert [(row["before"]["gb_s"], row["after"]["gb_s"]) for row in rows] == [(40, 41), (41, 60), (60, 61)]


def test_two_engines_are_compared_at_all_their_sequences(start):
    rows = speeds(start("300"), start("100"), Trial("decode", 16, 8), 2, probe)
    assert [row["ours"]["tok_s"] for row in rows] == pytest.approx([300, 300])
    assert [row["ratio"] for row in rows] == pytest.approx([3, 3])


def test_verify_curve_is_relative_to_one_row(start):
    rounds = curve([start("100")], 2, 2, probe)
    points = times(rounds, "100")
    assert [point["rows"] for point in points] == list(DEPTHS)
    assert [point["over_one"] for point in points] == pytest.approx([(n + 3) / 4 for n in DEPTHS])
    assert points[0]["seconds"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("samples", "low", "high"),
    [
        ([37, 38, 62, 63, 38, 61], 38, 61),
        ([36, 38, 37, 39, 40, 38], None, None),
        ([38, 37, 39, 38, 37, 38, 36, 12], None, None),  # one disturbed probe is no state
        ([38], None, None),
        ([], None, None),
    ],
)
def test_two_states_are_told_from_one(samples, low, high):
    threshold = divide(samples)
    if low is None:
        assert threshold is None
    else:
        assert threshold is not None
        assert low < threshold < high


def test_a_pair_has_the_state_around_it():
    assert state(38, 39, 50) == "slow"
    assert state(60, 62, 50) == "fast"
    assert state(38, 62, 50) == "mixed"
    assert state(38, 62, None) == "steady"


def pairs(ours, theirs, reads):
    return [
        {
            "ours": {"tok_s": mine}, "theirs": {"tok_s": other}, "ratio": mine / other,
            "before": probe(read).as_json(), "after": probe(read).as_json(),
        }
        for mine, other, read in zip(ours, theirs, reads, strict=True)
    ]  # fmt: skip


class Plain:
    """A subject of 1e9 operations a token."""

    def operations(self, test):
        return 1e9


def test_figures_of_a_row_follow_from_rates_and_bytes():
    ours, theirs = Model(None, "Q4_0", lambda test: 10**9), Model(None, "int8", lambda test: 2 * 10**9)
    got = pairs([20, 20, 30, 30], [10, 10, 10, 10], [40, 40, 60, 60])
    row = speed_result(Plain(), Trial("decode", 128), (ours, theirs), "int8_gops", got)
    race = {"results": [{**row, "peer": "x"}], "verify": None}
    run = {"races": [race]}
    finish(run)
    row = race["results"][0]
    assert row["ours"]["tok_s"] == {"median": 25, "min": 20, "max": 30}
    assert (row["ours"]["gb_s"], row["theirs"]["gb_s"]) == pytest.approx((25, 20))
    assert row["ours"]["read_share"] == pytest.approx(0.5)  # 20 of 40, 30 of 60: pair by pair
    assert row["ours"]["gops"] == pytest.approx(25)
    assert (row["ours"]["roof"], row["ours"]["roof_share"]) == ("read", pytest.approx(0.5))
    assert row["ratio"]["median"] == 2.5
    assert row["by_state"] == {"fast": {"pairs": 2, "ratio": 3.0}, "slow": {"pairs": 2, "ratio": 2.0}}
    batched = speed_result(Plain(), Trial("decode", 128, 8), (ours, theirs), "int8_gops", got)
    assert batched["ours"]["gb_s"] == pytest.approx(25 / 8)
    chunks = speed_result(Plain(), Trial("prefill", 1024), (ours, theirs), "int8_gops", got)
    assert chunks["ours"]["gb_s"] == pytest.approx(25 * 2 / 1024)


def test_a_threshold_can_be_given():
    row = speed_result(
        Plain(), Trial("decode", 8), (Model(None, "", lambda test: 1),) * 2, "int8_gops", pairs([1], [1], [40])
    )
    run = {"races": [{"results": [{**row, "peer": "x"}], "verify": None}]}
    finish(run, threshold=50)
    assert list(run["races"][0]["results"][0]["by_state"]) == ["slow"]


@pytest.mark.native
@pytest.mark.parametrize("shape", ["stories-15m", "olmoe-1b-7b"])
def test_work_of_a_step_is_counted_from_the_file(shape, tmp_path):
    subject = Subject(shape, tiny(shape, tmp_path), None)
    infos = [subject.checkpoint.info(name) for name in subject.checkpoint.names()]
    blocks = {
        info.name: math.prod(info.shape) for info in infos if info.name.startswith("blk.") and len(info.shape) > 1
    }
    met = sum(count / 8 if "_exps" in name else count for name, count in blocks.items())  # olmoe: 8 of 64
    head = subject.vocab * np.prod(subject.checkpoint.info("token_embd.weight").shape[1:])
    assert subject.operations(Trial("prefill", 512)) == pytest.approx(2 * met)
    assert subject.operations(Trial("decode", 128)) == pytest.approx(2 * (met + head))
    one, many = (subject.step_bytes(Trial("decode", 1, batch)) for batch in (1, 64))
    assert (one < many) == (shape == "olmoe-1b-7b")
    assert many <= subject.file_bytes


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_arithmetic_probe_compiles_and_answers(tmp_path):
    program = compiled(tmp_path)
    assert program is not None
    done = subprocess.run([program, "1"], capture_output=True, text=True, check=True)
    rates = json.loads(done.stdout)
    assert set(rates) <= {"int8_gops", "bf16_gflops", "round_trip_ns"}
    assert all(rate > 0 for rate in rates.values())


def test_a_run_without_results_can_still_be_told():
    race = {
        "title": "m, 2 threads", "format": "Q4_0", "file_bytes": 10**6, "versions": {}, "results": [],
        "verify": None, "failed": [{"what": "x", "why": "it has no legs"}],
    }  # fmt: skip
    run = {"date": "today", "machine": "here", "races": [race]}
    finish(run)
    assert "x: it has no legs" in text(run, markdown=True)
