"""Fair shares: the key that was served least lately goes first; within a key, first come, first served.

Paper:  Sheng et al., Fairness in Serving Large Language Models (virtual token counter), OSDI 2024, arXiv:2401.00588
Exact.
Needs:  requests with extra={"key": name}; those without share one
Cost:   O(jobs log jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.base import BadInput
from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import by_arrival, fill


class FairShares:
    """turn_rows: rows that a key may be ahead before another's request takes the seat of one that is running.
    starve_s: who has waited so long goes first, whatever its key had."""

    def __init__(self, turn_rows: int = 256, starve_s: float = 30.0) -> None:
        if turn_rows < 1 or starve_s <= 0:
            raise BadInput(f"turn_rows ({turn_rows}) must be at least 1 and starve_s ({starve_s}) above 0.")
        self.turn_rows, self.starve_s = turn_rows, starve_s

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        shares = dict.fromkeys({job.key for job in jobs}, 0.0) | dict(budget.shares)
        turns: list[tuple[float, bool, float, int, Job]] = []
        late: list[Job] = []
        for job in sorted(jobs, key=by_arrival):
            if now - job.since_s >= self.starve_s:
                late.append(job)
                continue
            # A request stands behind what its key has had and what its own elder requests are about to take.
            had = shares[job.key]
            shares[job.key] += (job.prompt_tokens - job.prefilled) + self.turn_rows / 4
            turns.append((had // self.turn_rows, not job.running, job.arrival_s, job.seq, job))
        turns.sort(key=lambda turn: turn[:4])
        late.sort(key=lambda job: (job.since_s, job.seq))
        return fill([*late, *(turn[4] for turn in turns)], budget)
