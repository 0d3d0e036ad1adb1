"""Priorities that age: lower numbers first, and every `age_s` of waiting counts as one step up.

Paper:  none (the numbers' meaning is vLLM's; ageing as in Unix schedulers)
Exact.
Needs:  requests with extra={"priority": n}; 0 without
Cost:   O(jobs log jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.base import BadInput
from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import fill


class PriorityAgeing:
    """age_s: a request n priorities behind overtakes all that arrive n * age_s after it; so nobody starves."""

    def __init__(self, age_s: float = 10.0) -> None:
        if age_s <= 0:
            raise BadInput(f"age_s is {age_s} but must be above 0: without ageing low priorities may wait for ever.")
        self.age_s = age_s

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        # arrival + priority * age_s orders as priority - waited / age_s does, and never changes while a job waits.
        def rank(job: Job) -> tuple[float, float, int]:
            return job.arrival_s + job.priority * self.age_s, job.arrival_s, job.seq

        return fill(sorted(jobs, key=rank), budget)
