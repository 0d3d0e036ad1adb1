"""Skip-join feedback queues as one function: the ranking, who gives up pages first, and what moves ahead of need."""

from collections.abc import Sequence

from edgewise.base import SeqId
from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.filling import fill, held
from edgewise.engine.policies.levels import first_quantum, joining, level, place, remaining, starving

SWAPS = ("enst", "released")


def skip_join(
    jobs: Sequence[Job], budget: Budget, now: float, quantum_s: float = 0.0, starve_s: float = 3.0, swap: str = "enst",
    ahead: bool = True,
) -> Decision:
    quantum, cost = first_quantum(quantum_s, budget), budget.cost
    risen = {job.seq for job in jobs if starving(job, now, starve_s, budget)}
    # Quantum of the queue that a job entered by its prompt, not by what preemption made it compute again.
    starts = {
        job.seq: 0 if job.promotions else joining(cost.seconds(job.prompt_tokens - job.generated), quantum)
        for job in jobs
    }

    def rank(job: Job) -> tuple[int, bool, float, float, int]:
        if job.seq in risen:
            return 0, True, job.since_s, job.arrival_s, job.seq
        return place(job, level(starts[job.seq], job.served_s, quantum))

    ranked = sorted(jobs, key=rank)
    volunteers = list(reversed(ranked))
    if swap == "enst":
        waits = next_times(ranked, starts, quantum, budget, now, starve_s)
        volunteers.sort(key=lambda job: -waits[job.seq])  # stable: equal times leave from the tail
    if not ahead:
        return fill(ranked, budget, volunteers, tuple(sorted(risen)))
    decision = fill(ranked, budget, volunteers, tuple(sorted(risen)))
    park, fetch = move(ranked, volunteers, decision, budget)
    return Decision(decision.prefill, decision.decode, decision.preempt, decision.promote, park, fetch)


def next_times(
    ranked: Sequence[Job], starts: dict[SeqId, int], quantum: float, budget: Budget, now: float, starve_s: float
) -> dict[SeqId, float]:
    """Estimated next scheduled time: its promotion, or when the work of the queues above it is done."""
    waits: dict[SeqId, float] = {}
    ahead_s = 0.0
    for at, job in enumerate(ranked):
        promotion = max(0.0, starve_s - (now - job.since_s))
        waits[job.seq] = 0.0 if at < budget.sequences else min(promotion, ahead_s / budget.sequences)
        ahead_s += remaining(starts[job.seq], job.served_s, quantum)
    return waits


def move(
    ranked: Sequence[Job], volunteers: Sequence[Job], decision: Decision, budget: Budget
) -> tuple[tuple[SeqId, ...], tuple[SeqId, ...]]:
    """Keeps a step's growth and the next entrant's prompt free; brings back who is next when there is more."""
    busy = {*decision.decode, *(seq for seq, _ in decision.prefill)}
    page = budget.page_tokens
    entering = [j for j in ranked if not j.running and j.seq in busy]
    waiting = [j for j in ranked if not j.running and j.seq not in busy]
    room = budget.free_tokens - sum(j.prompt_tokens + page for j in entering) - page * len(busy)
    want = page * budget.sequences + (waiting[0].prompt_tokens if waiting else 0)
    soon = {job.seq for job in ranked[: 2 * budget.sequences]}
    park: list[SeqId] = []
    for job in volunteers:
        if room >= want:
            break
        if job.running and job.seq not in busy and job.seq not in soon:
            park.append(job.seq)
            room += held(job, budget)
    # Never both ways in one step, or two jobs would change places for ever. At most a seatful on its way.
    fetch = [job.seq for job in ranked[: 3 * budget.sequences] if job.swapped and job.seq not in busy]
    return tuple(park), tuple(fetch[: budget.sequences]) if not park else ()
