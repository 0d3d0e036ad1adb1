"""The twin: loads as they are described, time as it is charged, slots as attention would see them."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput, SeqId
from edgewise.engine.api import StepCost, Work
from edgewise.engine.policies import POLICIES
from edgewise.sim.clients import play_live
from edgewise.sim.clock import VirtualClock
from edgewise.sim.load import GENERATED, Arrival, gaps, load, read_trace
from edgewise.sim.memory import slot_cache
from edgewise.sim.padding import PaddedBatches
from edgewise.sim.play import play, summary, tokens_hash, twin
from edgewise.sim.runner import CostRunner
from edgewise.sim.swap import RatedSwap

COST = StepCost(0.02, 0.003, 0.002, 0.0)
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize("name", GENERATED)
def test_generated_loads(name: str) -> None:
    first, again, other = load(name, 200), load(name, 200), load(name, 200, seed=1)
    assert first == again
    assert name == "equal" or first != other
    assert all(one.prompt_tokens >= 1 and one.output_tokens >= 1 for one in first)
    assert [one.at_s for one in first] == sorted(one.at_s for one in first)


def test_bursts() -> None:
    plain = load("poisson", 3000)
    for kind, low, high in (("poisson", 0.9, 1.1), ("gamma:0.25", 1.7, 2.3)):
        between = np.diff([one.at_s for one in gaps(plain, kind)])
        assert low < between.std() / between.mean() < high
    with pytest.raises(BadInput, match="gamma:SHAPE"):
        gaps(plain, "weibull")


def test_traces(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEAD + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05,3,8\n")
    assert load(str(path), 9, 4) == [Arrival(0.0, 1202, 2), Arrival(1.020040, 1, 2)]
    assert len(read_trace(path, 1)) == 1
    for text, words in (
        ("a,b\n1,2\n", "columns"), (HEAD, "no requests"), (HEAD + "yesterday,1,2\n", "line 2"),
        (HEAD + "2023-11-16 18:17:05,many,2\n", "line 2"), (HEAD + "2023-11-16 18:17:05\n", "line 2"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(BadInput, match=words):
            load(str(path), 9)
    with pytest.raises(BadInput, match="no load 'bimodel'"):
        load("bimodel", 9)


def test_a_step_takes_what_it_costs() -> None:
    clock, kv = VirtualClock(), slot_cache(8)
    runner = CostRunner(kv, StepCost(1.0, 0.1, 0.01, 0.001), clock)
    for seq in (0, 1):
        kv.open(SeqId(seq), ())
        kv.reserve(SeqId(seq), 20)
    runner.step([Work(SeqId(0), range(10), 0, 0)])
    assert clock.now() == pytest.approx(1 + 1.0 + 0.01)
    runner.step([Work(SeqId(0), [5], 10, 1), Work(SeqId(1), [7], 0, 1)])
    assert clock.now() == pytest.approx(2.01 + 1 + 0.02 + 0.012)
    assert len(runner.peaks()) == 2


def test_the_swap_disk_does_one_thing_at_a_time() -> None:
    clock = VirtualClock()
    swap = RatedSwap(clock, 100.0, 1, 150)
    chunk = [np.zeros(1, np.uint8)]
    assert swap.put(SeqId(0), 100, chunk)  # written at 1 s
    assert swap.put(SeqId(1), 100, chunk)  # waits for that: staging holds 150
    assert clock.now() == pytest.approx(1.0)
    swap.fetch(SeqId(0))  # the disk is writing until 2 s, reads until 3 s
    clock.sleep(5.0)
    stalled = swap.stalled_s
    assert swap.take(SeqId(0)) is not None
    assert swap.stalled_s == stalled
    assert swap.take(SeqId(1)) is not None
    assert swap.stalled_s == pytest.approx(stalled + 1.0)
    assert swap.take(SeqId(1)) is None


def test_a_request_alone_takes_its_own_time() -> None:
    engine, clock = twin(POLICIES.build("fcfs"), COST, sequences=4, tokens=4096)
    (record,) = play(engine, clock, [Arrival(3.0, 10, 5)])
    assert record.ttft_s == pytest.approx(0.05)
    assert record.jct_s == pytest.approx(0.05 + 4 * 0.022)
    assert record.tpot_s == pytest.approx(0.022)
    assert record.steps == 5
    numbers = summary([record], 0.06, 0.03)
    assert numbers["goodput_rps"] == pytest.approx(1 / record.last_s)
    assert summary([record], 0.04)["goodput_rps"] == 0


def test_real_time_gives_the_tokens_of_virtual_time() -> None:
    arrivals = [Arrival(0.02 * at, 5 + at, 4) for at in range(6)]
    engine, clock = twin(POLICIES.build("fcfs"), COST, sequences=2, tokens=4096)
    virtual = play(engine, clock, arrivals)
    live, _ = play_live(twin(POLICIES.build("mlfq"), COST, sequences=2, tokens=4096)[0], arrivals)
    assert tokens_hash(live) == tokens_hash(virtual)
    assert all(record.reason == "length" for record in live)


def test_padding_is_computed_and_changes_no_token() -> None:
    """Two batches of two: (40, 3) with (10, 5), then (7, 2) alone. Counted by hand."""
    arrivals = [Arrival(0.0, 40, 3), Arrival(0.0, 10, 5), Arrival(0.01, 7, 2)]
    engine, clock = twin(POLICIES.build("static"), COST, sequences=2, tokens=4096, rows=16)
    want = tokens_hash(play(engine, clock, arrivals))
    engine, clock = twin(POLICIES.build("static"), COST, sequences=2, tokens=4096, rows=16)
    engine.runner = padded = PaddedBatches(engine.runner, engine.kv, 16)
    assert tokens_hash(play(engine, clock, arrivals, together=True)) == want
    assert padded.padded == (40 - 10) + 2  # the rows of a prompt, and two rows of the one that is done
    padded.clear()
    assert engine.kv.free_tokens() == engine.capacity
