"""First come, first served: everyone who can decode does, then prompts in order of arrival; the youngest gives way.

Paper:  Yu et al., Orca (iteration-level scheduling), OSDI 2022; Agrawal et al., Sarathi-Serve (chunked prefill beside
        decoding under a row budget), 2024, arXiv:2403.02310
Exact.
Needs:  nothing
Cost:   O(jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.base import SeqId
from edgewise.engine.api import Budget, Decision, Job


def _age(job: Job) -> tuple[float, int]:
    return job.arrival_s, job.seq


class FirstComeFirstServed:
    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        rows, room = budget.tokens, budget.free_tokens
        decode: list[SeqId] = []
        prefill: list[tuple[SeqId, int]] = []
        running: list[SeqId] = []
        waiting: list[Job] = []
        ordered = sorted(jobs, key=_age)
        for job in ordered:
            if not job.running:
                waiting.append(job)
                continue
            running.append(job.seq)
            if job.generated and job.prefilled >= job.prompt_tokens and rows and len(decode) < budget.sequences:
                decode.append(job.seq)
                rows -= 1
        for job in ordered:
            left = job.prompt_tokens - job.prefilled
            if job.running and left > 0 and rows:
                prefill.append((job.seq, min(left, rows)))
                rows -= prefill[-1][1]
                room -= left
        for job in waiting:
            # Admit only what fits with a page to spare for everyone who is growing: else it would be thrown out again.
            spare = budget.page_tokens * (len(running) + 1) if running else 0
            if not rows or len(running) >= budget.sequences or (running and room < job.prompt_tokens + spare):
                break
            prefill.append((job.seq, min(job.prompt_tokens, rows)))
            rows -= prefill[-1][1]
            room -= job.prompt_tokens
            running.append(job.seq)
        return Decision(tuple(prefill), tuple(decode), tuple(reversed(running)), stays=len(decode) == len(jobs))
