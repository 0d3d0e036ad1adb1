"""The latest requests once more, on paper: how long they would have taken first come first served, and in skip-join
feedback queues. Step by step as the engine goes, but steps in which nothing changes are taken together.

Memory is taken to be enough. The rules are those of `filling`, `levels` and `skipping`, for jobs whose length is known.
"""

from collections.abc import Sequence

from edgewise.engine.api import Ended, StepCost
from edgewise.engine.policies.levels import joining, level, remaining


class Replayed:
    """One request on its way."""

    __slots__ = ("arrival_s", "left", "length", "prefill", "promoted", "served_s", "since_s", "start")

    def __init__(self, one: Ended, arrival_s: float, start: int) -> None:
        self.arrival_s = self.since_s = arrival_s
        self.prefill, self.left = one.prompt_tokens, max(1, one.generated)
        self.length = 0  # tokens in the cache
        self.served_s, self.start, self.promoted = 0.0, start, False


def mean_completion(
    ended: Sequence[Ended], cost: StepCost, seats: int, rows: int, quantum_s: float = 0.0, starve_s: float = 3.0
) -> float:
    """Mean seconds from arrival to last token; quantum_s of the first queue, 0: first come, first served."""
    coming = sorted(ended, key=lambda one: one.arrival_s)
    jobs: list[Replayed] = []
    now = total = 0.0
    at, count = 0, len(coming)
    now = coming[0].arrival_s if coming else 0.0
    while at < count or jobs:
        if not jobs:
            now = max(now, coming[at].arrival_s)
        while at < count and coming[at].arrival_s <= now:
            one = coming[at]
            start = joining(cost.seconds(one.prompt_tokens), quantum_s) if quantum_s else 0
            jobs.append(Replayed(one, one.arrival_s, start))
            at += 1
        chosen = _ranked(jobs, now, quantum_s, starve_s, cost)[:seats] if quantum_s else jobs[:seats]
        fresh = [job for job in chosen if job.prefill]
        steps, room, prefill = 1, rows, 0
        decoding = len(chosen) - len(fresh)
        context = sum(job.length for job in chosen)
        if fresh:
            room -= decoding
            for job in fresh:
                part = min(job.prefill, max(0, room - prefill))
                job.prefill -= part
                job.length += part
                prefill += part
                context += part
            seconds = cost.seconds(prefill, decoding, context)
        else:
            seconds = cost.seconds(0, decoding, context)
            steps = min(job.left for job in chosen)
            if at < count:
                steps = min(steps, int((coming[at].arrival_s - now) / seconds) + 1)
            if quantum_s:
                soonest = min(remaining(job.start, job.served_s, quantum_s) for job in chosen)
                steps = max(1, min(steps, int(soonest / seconds) + 1, 64))
            seconds *= steps
        now += seconds
        done = False
        for job in chosen:
            job.served_s += seconds
            job.since_s = now
            if not job.prefill:  # also the step that completes a prompt gives a token
                job.left -= steps
                job.length += steps
                if job.left <= 0:
                    total += now - job.arrival_s
                    done = True
        if done:
            jobs = [job for job in jobs if job.left > 0]
    return total / max(1, count)


def _ranked(
    jobs: Sequence[Replayed], now: float, quantum_s: float, starve_s: float, cost: StepCost
) -> list[Replayed]:
    keyed = []
    for number, job in enumerate(jobs):
        if now - job.since_s >= starve_s and (job.served_s > 0 or not job.promoted):
            job.served_s, job.promoted, job.start = 0.0, True, 0
        behind = job.served_s <= 0
        order = job.since_s if behind else -job.since_s
        keyed.append((level(job.start, job.served_s, quantum_s), behind, order, number, job))
    keyed.sort()
    return [entry[-1] for entry in keyed]
