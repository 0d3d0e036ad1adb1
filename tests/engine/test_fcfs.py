"""First come, first served: pure, within its budget, nobody starves."""

from hypothesis import given
from hypothesis import strategies as st

from edgewise.base import SeqId
from edgewise.engine.api import Budget, Job
from edgewise.engine.policies.fcfs import FirstComeFirstServed

POLICY = FirstComeFirstServed()


def job(seq: int, prompt: int, prefilled: int, generated: int = 0, running: bool = True) -> Job:
    return Job(SeqId(seq), float(seq), prompt, prefilled, generated, running)


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    made = []
    for seq in range(draw(st.integers(0, 12))):
        prompt = draw(st.integers(1, 200))
        state = draw(st.sampled_from(["waiting", "prefilling", "decoding"]))
        if state == "waiting":
            made.append(job(seq, prompt, 0, draw(st.integers(0, 3)), False))
        elif state == "prefilling":
            made.append(job(seq, prompt, draw(st.integers(0, prompt - 1)), 0))
        else:
            made.append(job(seq, prompt, prompt + 2, 3))
    return draw(st.permutations(made))


@given(jobs(), st.integers(1, 64), st.integers(1, 8), st.integers(0, 40))
def test_decisions_keep_the_budget(waiting: list[Job], rows: int, sequences: int, pages: int) -> None:
    budget = Budget(rows, sequences, pages * 16, 16)
    decision = POLICY.pick(waiting, budget, 0.0)
    assert decision == POLICY.pick(list(reversed(waiting)), budget, 99.0)  # pure, and the order given is no matter
    by_seq = {j.seq: j for j in waiting}
    assert len(decision.decode) + sum(n for _, n in decision.prefill) <= rows
    assert len(decision.decode) <= sequences
    chosen = [*decision.decode, *(seq for seq, _ in decision.prefill)]
    assert len(chosen) == len(set(chosen))
    for seq in decision.decode:
        assert by_seq[seq].prefilled >= by_seq[seq].prompt_tokens
    for seq, count in decision.prefill:
        assert 1 <= count <= by_seq[seq].prompt_tokens - by_seq[seq].prefilled
    running = {j.seq for j in waiting if j.running} | set(chosen)
    assert set(decision.preempt) == running
    if waiting:
        assert chosen, "work there is, and nobody does any"


def test_older_first() -> None:
    decision = POLICY.pick([job(2, 10, 0, running=False), job(1, 10, 0, running=False)], Budget(12, 8, 1000, 16), 0.0)
    assert decision.prefill == ((1, 10), (2, 2))
    assert decision.preempt == (2, 1)


def test_nobody_overtakes_a_prompt_that_does_not_fit_yet() -> None:
    waiting = [job(0, 5, 9, 5), job(1, 500, 0, running=False), job(2, 4, 0, running=False)]
    decision = POLICY.pick(waiting, Budget(64, 8, 160, 16), 0.0)
    assert decision.prefill == ()
    assert decision.decode == (0,)
