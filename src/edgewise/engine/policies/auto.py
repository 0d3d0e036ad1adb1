"""Feedback queues where they pay, first come first served where not: decided by replaying the latest requests.

Paper:  the decision is ours. Feedback queues win when the hazard rate of service times falls, which the traces of
        FastServe's critics do not show; but how much is won depends on arrivals, seats and what steps cost as well. So
        the latest requests (their own lengths and arrival times) go through both schedules once more, on paper
Exact.
Needs:  some requests that are over, and a measured cost of steps; until then, first come first served
Cost:   O(jobs log jobs) a step; a replay of up to 512 requests, tens of milliseconds, for every 64 that end
Status: kept
"""

import math
from collections.abc import Sequence

from edgewise.base import BadInput
from edgewise.engine.api import Budget, Decision, Ended, Job
from edgewise.engine.policies.filling import by_arrival, fill
from edgewise.engine.policies.levels import first_quantum
from edgewise.engine.policies.replay import mean_completion
from edgewise.engine.policies.skipping import skip_join


class ReplaySwitch:
    """gain: feedback queues take over when their mean completion time is below this share of first come first served's,
    less `doubt` over the root of how many requests were replayed; they stay until it is above 1. least: requests that
    must be over first."""

    def __init__(self, gain: float = 0.97, least: int = 12, doubt: float = 0.4) -> None:
        if not 0 < gain <= 1 or least < 2 or doubt < 0:
            raise BadInput(f"gain ({gain}) must be in (0, 1], least ({least}) at least 2, doubt ({doubt}) at least 0.")
        self.gain, self.least, self.doubt = gain, least, doubt
        self.queues = False
        self._seen: Sequence[Ended] = ()
        self._news = 0  # endings since the last replay
        self._when = -math.inf
        self._ratio = math.inf

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        ratio = self.ratio(jobs, budget, now)
        less = self.doubt / math.sqrt(max(1, len(budget.ended)))
        self.queues = ratio < (1.0 if self.queues else self.gain - less)
        if self.queues:
            return skip_join(jobs, budget, now)
        return fill(sorted(jobs, key=by_arrival), budget)

    def ratio(self, jobs: Sequence[Job], budget: Budget, now: float) -> float:
        """Mean completion time of feedback queues over that of first come first served, for the latest requests.

        Who is being served counts as well, with twice what it has been given, and who waits, with a length of those
        that are over: these alone would be the short ones, when long ones hold all seats. An answer is remembered until
        enough others have ended, or some time has passed while a queue stands."""
        if budget.ended is not self._seen:
            self._seen = budget.ended
            self._news += 1
        known = len(budget.ended)
        late = now - self._when >= max(1.0, known / 64) and len(jobs) > budget.sequences
        if known >= self.least and (late or self._news >= max(4, known // 8)):
            self._news, self._when = 0, now
            whole = [one for one in budget.ended if one.whole]
            self._ratio = replayed([*whole, *guessed(jobs, whole)], budget)
        return self._ratio


def guessed(jobs: Sequence[Job], ended: Sequence[Ended]) -> list[Ended]:
    """What those that are here may turn out to be."""
    found = []
    for at, job in enumerate(sorted(jobs, key=by_arrival)):
        length = 2 * job.generated if job.generated or not ended else ended[-1 - at % len(ended)].generated
        found.append(Ended(job.prompt_tokens, length, True, job.arrival_s))
    return found


def replayed(ended: Sequence[Ended], budget: Budget) -> float:
    """The ratio for these requests; infinite while nothing is known of the cost of steps."""
    if not ended or budget.cost.seconds(1, 1) <= 0:
        return math.inf
    served = mean_completion(ended, budget.cost, budget.sequences, budget.tokens)
    queued = mean_completion(ended, budget.cost, budget.sequences, budget.tokens, first_quantum(0.0, budget))
    return queued / served if served > 0 else math.inf
