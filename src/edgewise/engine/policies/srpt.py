"""Shortest remaining processing time first: an oracle that believes every request will use all of its max_tokens.

Paper:  Schrage, A proof of the optimality of the shortest remaining processing time discipline, 1968; the lower bound
        that FastServe (Wu et al., NSDI 2026) is measured against
Exact.
Needs:  requests whose max_tokens is their length (benches: ignore_eos); long requests may wait for ever
Cost:   O(jobs log jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import fill


class ShortestRemaining:
    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        cost = budget.cost
        row, step = cost.prefill_s or 1.0, cost.seconds(0, 1) or 1.0

        def rest(job: Job) -> tuple[float, float, int]:
            return (job.prompt_tokens - job.prefilled) * row + job.left * step, job.arrival_s, job.seq

        return fill(sorted(jobs, key=rest), budget)
