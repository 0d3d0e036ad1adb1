"""From a ranking of jobs to a step: seats, rows and KV room, handed out from the top."""

from collections.abc import Sequence

from edgewise.base import SeqId
from edgewise.engine.api import Budget, Decision, Job


def by_arrival(job: Job) -> tuple[float, int]:
    return job.arrival_s, job.seq


def ready(job: Job) -> bool:
    """It can draw a token: all it needs is cached."""
    return job.running and job.generated > 0 and job.prefilled >= job.prompt_tokens


def held(job: Job, budget: Budget) -> int:
    """KV room that it has, in whole pages."""
    return -(-job.prefilled // budget.page_tokens) * budget.page_tokens if job.running else 0


def seated(ranked: Sequence[Job], budget: Budget) -> list[Job]:
    """The jobs of this step, at most budget.sequences of them, each with the room it needs.

    Room is what is free, and what those hold that rank behind. A waiting job that finds no room stops those behind it
    from entering, or a long prompt would wait for ever; who holds pages goes on. The first holder, or the first of
    all when nobody holds any, always has a seat."""
    page = budget.page_tokens
    behind = sum(held(job, budget) for job in ranked)
    room, closed = budget.free_tokens, False
    anyone = any(job.running for job in ranked)
    chosen: list[Job] = []
    for job in ranked:
        if len(chosen) >= budget.sequences:
            break
        behind -= held(job, budget)
        if job.running:
            room -= page
            chosen.append(job)
        elif not closed:
            need = -(-job.prompt_tokens // page) * page + page
            if need <= room + behind or not (anyone or chosen):
                room -= need
                chosen.append(job)
            else:
                closed = True
    return chosen


def fill(
    ranked: Sequence[Job],
    budget: Budget,
    volunteers: Sequence[Job] | None = None,
    promote: tuple[SeqId, ...] = (),
    park: tuple[SeqId, ...] = (),
    fetch: tuple[SeqId, ...] = (),
) -> Decision:
    """ranked: all jobs, the most urgent first. A row for everyone seated who decodes; what is left of the rows goes to
    prompts in rank order. volunteers: who gives up pages first when they are short; None: the last in rank."""
    chosen = seated(ranked, budget)
    decode: list[SeqId] = []
    rows = budget.tokens
    for job in chosen:
        if ready(job) and rows:
            decode.append(job.seq)
            rows -= 1
    prefill: list[tuple[SeqId, int]] = []
    for job in chosen:
        left = job.prompt_tokens - max(job.prefilled, job.swapped)
        if left > 0 and rows and not ready(job):
            prefill.append((job.seq, min(left, rows)))
            rows -= prefill[-1][1]
    entering = {seq for seq, _ in prefill}
    order = reversed(ranked) if volunteers is None else volunteers
    preempt = tuple(job.seq for job in order if job.running or job.seq in entering)
    return Decision(tuple(prefill), tuple(decode), preempt, promote, park, fetch)
