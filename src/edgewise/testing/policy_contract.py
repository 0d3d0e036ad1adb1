"""What every scheduler policy must do. Subclass in a test file and implement `make`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgewise.base import SeqId
from edgewise.engine.api import Budget, Decision, Job, SchedulerPolicy


def job(seq: int, prompt: int, prefilled: int, generated: int = 0, running: bool = True) -> Job:
    return Job(SeqId(seq), float(seq), prompt, prefilled, generated, running)


def random_jobs(numbers: np.random.Generator) -> list[Job]:
    """Up to 12 sequences, waiting, prefilling or decoding, in no order."""
    made = []
    for seq in range(int(numbers.integers(0, 13))):
        prompt = int(numbers.integers(1, 200))
        kind = numbers.integers(3)
        if kind == 0:
            made.append(job(seq, prompt, 0, int(numbers.integers(0, 3)), False))
        elif kind == 1:
            made.append(job(seq, prompt, int(numbers.integers(0, prompt)), 0))
        else:
            made.append(job(seq, prompt, prompt + 2, 3))
    return [made[at] for at in numbers.permutation(len(made))]


class PolicyContract:
    CASES = 500

    def make(self) -> SchedulerPolicy:
        raise NotImplementedError

    def cases(self) -> Sequence[tuple[list[Job], Budget, Decision]]:
        policy, cases = self.make(), []
        for seed in range(self.CASES):
            numbers = np.random.default_rng(seed)
            jobs = random_jobs(numbers)
            rows, sequences, pages = (int(numbers.integers(*ends)) for ends in ((1, 64), (1, 8), (0, 40)))
            budget = Budget(rows, sequences, 16 * pages, 16)
            cases.append((jobs, budget, policy.pick(jobs, budget, 1000.0)))
        return cases

    def test_it_keeps_to_the_budget(self) -> None:
        for _, budget, decision in self.cases():
            assert len(decision.decode) + sum(count for _, count in decision.prefill) <= budget.tokens
            assert len(decision.decode) <= budget.sequences

    def test_it_asks_only_for_what_can_be_done(self) -> None:
        for jobs, _, decision in self.cases():
            known = {j.seq: j for j in jobs}
            chosen = [*decision.decode, *(seq for seq, _ in decision.prefill)]
            assert len(chosen) == len(set(chosen))
            for seq in decision.decode:
                assert known[seq].running
                assert known[seq].prefilled >= known[seq].prompt_tokens
            for seq, count in decision.prefill:
                assert 1 <= count <= known[seq].prompt_tokens - known[seq].prefilled

    def test_everyone_with_pages_is_a_volunteer(self) -> None:
        for jobs, _, decision in self.cases():
            holding = {j.seq for j in jobs if j.running} | {seq for seq, _ in decision.prefill}
            assert set(decision.preempt) == holding
            assert len(decision.preempt) == len(holding)

    def test_it_is_never_idle_while_there_is_work(self) -> None:
        for jobs, _, decision in self.cases():
            assert not jobs or decision.decode or decision.prefill

    def test_it_is_pure(self) -> None:
        policy = self.make()
        for jobs, budget, decision in self.cases():
            assert policy.pick(list(reversed(jobs)), budget, 1000.0) == decision

    def test_a_decision_that_stays_would_be_made_again(self) -> None:
        policy = self.make()
        for jobs, budget, decision in self.cases():
            if decision.stays:
                later = [replace(j, prefilled=j.prefilled + 40, generated=j.generated + 40) for j in jobs]
                assert policy.pick(later, replace(budget, free_tokens=0), 2000.0) == decision
