"""Every policy keeps the contract, ranks as it says, and lets nobody starve."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.base import BadInput, SeqId
from edgewise.engine.api import Budget, Ended, Job, SchedulerPolicy, StepCost
from edgewise.engine.policies import POLICIES
from edgewise.engine.policies.auto import replayed
from edgewise.engine.policies.levels import joining, level, remaining
from edgewise.testing.policy_contract import PolicyContract, job

COST = StepCost(0.02, 0.003, 0.002, 0.0)


def make(text: str) -> SchedulerPolicy:
    policy: SchedulerPolicy = POLICIES.build(text)
    return policy


class TestStatic(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("static")


class TestSrpt(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("srpt")


class TestMlfq(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("mlfq")


class TestSkipJoin(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("sj-mlfq:swap=enst")


class TestSkipJoinReleased(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("sj-mlfq:swap=released,ahead=False")


class TestAuto(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("auto")


class TestPriority(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("priority")


class TestFair(PolicyContract):
    CASES = 150

    def make(self) -> SchedulerPolicy:
        return make("fair")


# ── rankings ────────────────────────────────────────────────────────────────────────────


def decoding(seq: int, **facts: Any) -> Job:
    return dataclasses.replace(job(seq, 10, 12, 3), **facts)


def waiting(seq: int, prompt: int = 10, **facts: Any) -> Job:
    return dataclasses.replace(job(seq, prompt, 0, running=False), **facts)


def seats(count: int, **facts: Any) -> Budget:
    return Budget(512, count, 16000, 16, COST, **facts)


def chosen(policy: str, jobs: list[Job], budget: Budget, now: float = 0.0) -> list[int]:
    decision = make(policy).pick(jobs, budget, now)
    return sorted([*decision.decode, *(seq for seq, _ in decision.prefill)])


def test_srpt_takes_the_one_with_least_to_do() -> None:
    assert chosen("srpt", [decoding(0, left=90), waiting(1, left=5), decoding(2, left=70)], seats(1)) == [1]


def test_feedback_prefers_those_who_had_less() -> None:
    jobs = [decoding(0, served_s=9.0), decoding(1, served_s=0.3), waiting(2)]
    assert chosen("mlfq:quantum_s=0.1", jobs, seats(1)) == [2]
    assert chosen("mlfq:quantum_s=0.1", jobs, seats(2)) == [1, 2]


def test_skip_join_puts_a_long_prompt_behind_a_short_job_that_has_run() -> None:
    jobs = [decoding(0, served_s=0.15, since_s=0.9), waiting(1, 400)]  # 1.22 s of prefill: queue 4 of 0.1 s
    assert chosen("mlfq:quantum_s=0.1", jobs, seats(1), 1.0) == [1]
    assert chosen("sj-mlfq:quantum_s=0.1", jobs, seats(1), 1.0) == [0]


def test_who_waited_too_long_goes_first_and_is_counted_anew() -> None:
    jobs = [decoding(0, served_s=50.0, since_s=1.0), decoding(1, served_s=0.05, since_s=4.4), waiting(2, since_s=4.4)]
    for name in ("mlfq:quantum_s=0.1", "sj-mlfq:quantum_s=0.1"):
        assert make(name).pick(jobs, seats(1), 3.9).promote == ()
        assert make(name).pick(jobs, seats(1), 4.1).promote == (0,)
        risen = [dataclasses.replace(jobs[0], served_s=0.0, promotions=1), *jobs[1:]]
        assert make(name).pick(risen, seats(1), 4.5).promote == ()
        assert 0 in chosen(name, risen, seats(2), 4.5)


def test_the_two_swap_orders_differ() -> None:
    """Two jobs low in the ranking: one has waited nearly long enough to be promoted, the other has just run."""
    jobs = [
        decoding(0, served_s=0.01, since_s=5.0), decoding(1, served_s=30.0, since_s=2.1),
        decoding(2, served_s=9.0, since_s=5.0), decoding(3, served_s=9.0, since_s=4.9),
    ]  # fmt: skip
    released = make("sj-mlfq:quantum_s=0.1,swap=released").pick(jobs, seats(1), 5.0)
    enst = make("sj-mlfq:quantum_s=0.1,swap=enst").pick(jobs, seats(1), 5.0)
    assert released.preempt == (1, 3, 2, 0)
    assert enst.preempt[0] != 1
    assert set(enst.preempt) == set(released.preempt)


def test_pages_move_ahead_of_need_and_never_both_ways() -> None:
    jobs = [decoding(seq, served_s=float(seq + 1), prompt_tokens=300, prefilled=302) for seq in range(6)]
    tight = Budget(512, 1, 16, 16, COST)
    decision = make("sj-mlfq:quantum_s=0.1").pick([*jobs, waiting(9, 200, served_s=99.0, swapped=199)], tight, 1.0)
    assert decision.park
    assert decision.fetch == ()
    assert not set(decision.park) & {*decision.decode, *(seq for seq, _ in decision.prefill)}
    assert make("sj-mlfq:quantum_s=0.1,ahead=False").pick(jobs, tight, 1.0).park == ()
    away = [decoding(0, served_s=0.2), waiting(1, 200, served_s=0.5, swapped=199)]
    assert make("sj-mlfq:quantum_s=0.1").pick(away, seats(1), 1.0).fetch == (1,)


def test_static_admits_nobody_while_a_batch_runs() -> None:
    assert chosen("static", [waiting(0), waiting(1), waiting(2)], seats(2)) == [0, 1]
    assert chosen("static", [decoding(0), waiting(1)], seats(2)) == [0]


def test_priorities_and_their_ageing() -> None:
    urgent, plain = waiting(5, arrival_s=12.0), waiting(1, arrival_s=3.0, priority=1)
    assert chosen("priority:age_s=10", [urgent, plain], seats(1)) == [5]
    assert chosen("priority:age_s=8", [urgent, plain], seats(1)) == [1]


def test_fair_shares_by_key() -> None:
    greedy = [waiting(seq, arrival_s=0.1 * seq, key="a") for seq in range(6)]
    late = waiting(9, arrival_s=5.0, key="b")
    assert 9 not in chosen("fcfs", [*greedy, late], seats(2))
    assert 9 in chosen("fair", [*greedy, late], seats(2, shares={"a": 900.0, "b": 0.0}))


def test_auto_replays_what_it_has_seen() -> None:
    """The spec's bimodal mix has a falling hazard rate; equal, and geometric, lengths have not."""
    numbers = np.random.default_rng(0)

    def mix(kind: str, gap_s: float) -> tuple[Ended, ...]:
        times = np.cumsum(numbers.exponential(gap_s, 500)).tolist()
        if kind == "bimodal":
            return tuple(Ended(*((256, 384) if numbers.random() < 0.1 else (16, 16)), True, at) for at in times)
        if kind == "equal":
            return tuple(Ended(64, 64, True, at) for at in times)
        return tuple(
            Ended(int(numbers.geometric(1 / 128)), int(numbers.geometric(1 / 64)), True, at) for at in times
        )

    busy = seats(4)
    assert replayed(mix("bimodal", 0.5), busy) < 0.9
    assert replayed(mix("geometric", 0.92), busy) > 1.05
    assert replayed(mix("equal", 0.7), busy) > 1.05
    assert replayed(mix("geometric", 1e3), busy) == pytest.approx(1.0)  # nobody ever waits
    assert replayed(mix("equal", 0.7), dataclasses.replace(busy, cost=StepCost())) == math.inf
    jobs = [decoding(0, served_s=50.0), waiting(1)]
    assert chosen("auto", jobs, seats(1, ended=mix("bimodal", 1.5))) == [1]
    assert chosen("auto", jobs, seats(1, ended=mix("geometric", 2.1))) == [0]
    assert chosen("auto", jobs, seats(1, ended=mix("bimodal", 1.5)[:9])) == [0]


def test_auto_does_not_flutter() -> None:
    policy = make("auto:doubt=0.0")
    jobs = [decoding(0, served_s=50.0), waiting(1)]
    told: list[float] = []
    policy.ratio = lambda jobs, budget, now: told[-1]
    for ratio, queues in ((0.98, False), (0.96, True), (0.98, True), (1.01, False), (0.98, False)):
        told.append(ratio)
        policy.pick(jobs, seats(1), 0.0)
        assert policy.queues == queues


@given(st.floats(0, 1e4), st.integers(0, 8), st.floats(0.001, 10))
def test_levels_agree_with_what_remains_in_them(served: float, start: int, quantum: float) -> None:
    at, left = level(start, served, quantum), remaining(start, served, quantum)
    assert at >= start
    assert level(start, served + left + 1e-3 * quantum, quantum) == at + 1
    assert left > -1e-6 * max(served, quantum)


@given(st.floats(1e-4, 1e3), st.floats(0.001, 1.0))
def test_joining_is_the_first_queue_that_covers_the_prefill(seconds: float, quantum: float) -> None:
    at = joining(seconds, quantum)
    assert quantum * 2**at >= seconds * (1 - 1e-6)
    assert at == 0 or quantum * 2 ** (at - 1) < seconds * (1 + 1e-6)


@pytest.mark.parametrize("text", ["mlfq:starve_s=0", "sj-mlfq:swap=lifo", "priority:age_s=0", "fair:turn_rows=0"])
def test_senseless_settings_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="must be"):
        make(text)


# ── starvation ──────────────────────────────────────────────────────────────────────────

STARVE_S, QUANTUM_S, STEP_S = 2.0, 0.1, 0.05


def longest_wait(policy: SchedulerPolicy, sizes: list[tuple[float, int]], seats_: int) -> tuple[float, int]:
    """Plays jobs of (arrival, tokens) in a world where a step takes 50 ms; the longest time anyone went without one,
    and how many were there at once."""
    now, longest, crowd = 0.0, 0.0, 0
    coming = sorted(sizes)
    there: dict[int, Job] = {}
    left: dict[int, int] = {}
    while coming or there:
        while coming and (coming[0][0] <= now or not there):
            at, tokens = coming.pop(0)
            now = max(now, at)
            seq = len(left)
            there[seq] = Job(SeqId(seq), at, 16, 0, 0, False, left=tokens, since_s=at)
            left[seq] = tokens
        crowd = max(crowd, len(there))
        decision = policy.pick(list(there.values()), Budget(512, seats_, 1 << 20, 16, COST), now)
        for seq in decision.promote:
            there[seq] = dataclasses.replace(there[seq], served_s=0.0, promotions=there[seq].promotions + 1)
        now += STEP_S
        for seq in [*decision.decode, *(seq for seq, _ in decision.prefill)]:
            mine = there[seq]
            longest = max(longest, now - STEP_S - mine.since_s)
            left[seq] -= 1
            there[seq] = dataclasses.replace(
                mine, running=True, prefilled=16, generated=mine.generated + 1, left=left[seq],
                served_s=mine.served_s + STEP_S, since_s=now, prompt_tokens=16,
            )  # fmt: skip
            if not left[seq]:
                del there[seq]
    return longest, crowd


LOADS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 120)), min_size=1, max_size=25)


@settings(max_examples=20, deadline=None)
@given(sizes=LOADS, count=st.integers(1, 4), name=st.sampled_from(["mlfq", "sj-mlfq", "sj-mlfq:swap=released"]))
def test_nobody_starves(sizes: list[tuple[float, int]], count: int, name: str) -> None:
    """By construction: after STARVE_S a job stands at the top, ahead of all who come later; those who stand there
    already leave after a quantum each, and so do those who were promoted before it."""
    extra = "," if ":" in name else ":"
    policy = make(f"{name}{extra}quantum_s={QUANTUM_S},starve_s={STARVE_S}")
    longest, crowd = longest_wait(policy, sizes, count)
    assert longest <= STARVE_S + 2 * (crowd / count + 1) * (QUANTUM_S + 2 * STEP_S)


def test_the_oracle_does_starve() -> None:
    """The negative control of the property above: one long job beside short ones without end."""
    sizes = [(0.0, 100), *((0.25 * at, 5) for at in range(200))]
    assert longest_wait(make("srpt"), sizes, 1)[0] > 40
    assert longest_wait(make(f"mlfq:quantum_s={QUANTUM_S},starve_s={STARVE_S}"), sizes, 1)[0] < 10


@settings(max_examples=20, deadline=None)
@given(sizes=LOADS, count=st.integers(1, 4))
def test_no_one_who_runs_is_ever_stopped_by_arrival_order(sizes: list[tuple[float, int]], count: int) -> None:
    """First come, first served: whoever has begun goes on in every step, so a wait is over once it is over."""
    policy = make("fcfs")
    total = sum(tokens for _, tokens in sizes)
    longest, _ = longest_wait(policy, sizes, count)
    assert longest <= STEP_S * total
