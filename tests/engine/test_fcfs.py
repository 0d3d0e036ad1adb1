"""First come, first served keeps the contract of every policy, and its own order."""

from edgewise.engine.api import Budget, SchedulerPolicy
from edgewise.engine.policies import POLICIES
from edgewise.engine.policies.fcfs import FirstComeFirstServed
from edgewise.testing.policy_contract import PolicyContract, job

POLICY = FirstComeFirstServed()


class TestFcfs(PolicyContract):
    def make(self) -> SchedulerPolicy:
        policy: SchedulerPolicy = POLICIES.build("fcfs")
        return policy


def test_older_first() -> None:
    decision = POLICY.pick([job(2, 10, 0, running=False), job(1, 10, 0, running=False)], Budget(12, 8, 1000, 16), 0.0)
    assert decision.prefill == ((1, 10), (2, 2))
    assert decision.preempt == (2, 1)


def test_nobody_overtakes_a_prompt_that_does_not_fit_yet() -> None:
    waiting = [job(0, 5, 9, 5), job(1, 500, 0, running=False), job(2, 4, 0, running=False)]
    decision = POLICY.pick(waiting, Budget(64, 8, 160, 16), 0.0)
    assert decision.prefill == ()
    assert decision.decode == (0,)
