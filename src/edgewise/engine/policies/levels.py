"""Queues whose quanta double, as functions of what a job has been served: no state but the job's own."""

import math

from edgewise.engine.api import Budget, Job

LEVELS = 24  # the last quantum is two weeks when the first is 100 ms


def joining(seconds: float, quantum_s: float) -> int:
    """The first queue whose quantum covers `seconds`."""
    if seconds <= quantum_s:
        return 0
    return min(LEVELS, math.ceil(math.log2(seconds / quantum_s) - 1e-9))


def level(start: int, served_s: float, quantum_s: float) -> int:
    """Where a job is that entered queue `start` and used up one quantum in each queue since."""
    return min(LEVELS, int(math.log2(served_s / quantum_s + 2.0**start) + 1e-9))


def remaining(start: int, served_s: float, quantum_s: float) -> float:
    """Seconds until it is demoted."""
    at = level(start, served_s, quantum_s)
    return quantum_s * (2.0 ** (at + 1) - 2.0**start) - served_s


def place(job: Job, at: int) -> tuple[int, bool, float, float, int]:
    """Rank within all queues. Who has run in this queue stays in front of it, the latest first; newcomers and the
    promoted go behind, the longest wait first."""
    if job.served_s > 0:
        return at, False, -job.since_s, job.arrival_s, job.seq
    return at, True, job.since_s, job.arrival_s, job.seq


def first_quantum(quantum_s: float, budget: Budget) -> float:
    """quantum_s, or, when that is 0, two steps of decoding as this engine measures them."""
    return quantum_s or max(1e-4, 2 * budget.cost.seconds(0, budget.sequences))


PATIENCE = 16  # times the cost of computing its tokens again: who lost its pages is not brought back for less


def starving(job: Job, now: float, after_s: float, budget: Budget) -> bool:
    """It has waited long enough to be promoted, and was not since it last ran."""
    if job.generated and not job.running:
        after_s += PATIENCE * budget.cost.seconds(job.prompt_tokens)
    return now - job.since_s >= after_s and (job.served_s > 0 or job.promotions == 0)

