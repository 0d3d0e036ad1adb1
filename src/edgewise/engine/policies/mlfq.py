"""Multi-level feedback queues: everyone starts at the top and sinks a queue for each quantum used; quanta double.

Paper:  Corbató et al., 1962; the baseline of FastServe (Wu et al., NSDI 2026)
Exact.
Needs:  room for the pages of those who wait in lower queues; pays only when much-served jobs have long to go
Cost:   O(jobs log jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.base import BadInput
from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import fill
from edgewise.engine.policies.levels import first_quantum, level, place, starving


class FeedbackQueues:
    """quantum_s: of the first queue; 0: two decode steps. starve_s: who has waited so long goes to the top."""

    def __init__(self, quantum_s: float = 0.0, starve_s: float = 3.0) -> None:
        if quantum_s < 0 or starve_s <= 0:
            raise BadInput(f"quantum_s ({quantum_s}) must be at least 0 and starve_s ({starve_s}) above 0.")
        self.quantum_s, self.starve_s = quantum_s, starve_s

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        quantum = first_quantum(self.quantum_s, budget)
        risen = {job.seq for job in jobs if starving(job, now, self.starve_s, budget)}

        def rank(job: Job) -> tuple[int, bool, float, float, int]:
            if job.seq in risen:
                return 0, True, job.since_s, job.arrival_s, job.seq
            return place(job, level(0, job.served_s, quantum))

        return fill(sorted(jobs, key=rank), budget, promote=tuple(sorted(risen)))
