"""Skip-join feedback queues: a job enters the queue whose quantum covers its prefill; pages move ahead of need.

Paper:  Wu et al., FastServe, arXiv:2305.05920, NSDI 2026. swap="enst" is the paper's order (the largest estimated next
        scheduled time leaves first), swap="released" that of the released code (the tail of the lowest queue)
Exact.
Needs:  room for the pages of those who wait, or a swap file; pays only when much-served jobs have long to go
Cost:   O(jobs log jobs) a step
Status: kept
"""

from collections.abc import Sequence

from edgewise.base import BadInput
from edgewise.engine.api import Budget, Decision, Job
from edgewise.engine.policies.skipping import SWAPS, skip_join


class SkipJoinQueues:
    """quantum_s: of the first queue; 0: two decode steps. starve_s: who has waited so long goes to the top.

    swap: who gives up pages first. ahead: move pages before they are needed; False: only when there is no room."""

    def __init__(
        self, quantum_s: float = 0.0, starve_s: float = 3.0, swap: str = "enst", ahead: bool = True
    ) -> None:
        if quantum_s < 0 or starve_s <= 0:
            raise BadInput(f"quantum_s ({quantum_s}) must be at least 0 and starve_s ({starve_s}) above 0.")
        if swap not in SWAPS:
            raise BadInput(f"swap is '{swap}' but must be one of {', '.join(SWAPS)}.")
        self.quantum_s, self.starve_s, self.swap, self.ahead = quantum_s, starve_s, swap, ahead

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        return skip_join(jobs, budget, now, self.quantum_s, self.starve_s, self.swap, self.ahead)
