"""Request-level batches: who is there goes in together, nobody joins until the last of them is done. A baseline.

Paper:  the scheduling of FasterTransformer and Triton that Orca is measured against (Yu et al., OSDI 2022)
Exact.
Needs:  nothing
Cost:   O(jobs) a step; seats stand empty while the longest request of a batch goes on
Status: kept
"""

from collections.abc import Sequence
from dataclasses import replace

from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import by_arrival, fill


class RequestLevelBatches:
    """First all prompts of a batch, then all its tokens."""

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        ordered = sorted(jobs, key=by_arrival)
        # Whoever was thrown out for want of room has output already: it may come back, nobody else may enter.
        inside = [job for job in ordered if job.running or job.generated]
        if any(job.generated > 1 for job in inside):
            return fill(inside, budget)
        decision = fill([*inside, *(job for job in ordered if job not in inside)], budget)
        return replace(decision, decode=()) if decision.prefill else decision
