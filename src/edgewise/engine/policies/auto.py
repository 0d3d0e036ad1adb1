"""Feedback queues where they pay, first come first served where not: decided by how long requests turn out to be.

Paper:  the decision is ours; it compares two formulas of queueing theory (Kleinrock, Queueing Systems II, 1976, §4.6,
        for several queues; Sakasegawa, 1977, for several seats) on the survival function of the latest requests.
        Feedback queues win when the hazard rate falls, which the traces of FastServe's critics do not show
Exact.
Needs:  some requests that are over; until then, first come first served
Cost:   O(jobs log jobs) a step, and one sort of the last 512 requests when one ends
Status: kept
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgewise.engine.api import Budget, Decision, Ended, Job, StepCost
from edgewise.engine.policies.filling import by_arrival, fill
from edgewise.engine.policies.levels import first_quantum
from edgewise.engine.policies.skipping import skip_join


class HazardSwitch:
    """gain: the predicted share of first come first served's mean completion time at which feedback queues take over.

    least: requests that must be over first. load: the load to predict for; near 0 both are alike."""

    def __init__(self, gain: float = 0.8, least: int = 20, load: float = 0.85) -> None:
        self.gain, self.least, self.load = gain, least, load
        self._seen: Sequence[Ended] = ()
        self._ratio = math.inf

    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision:
        if self.ratio(budget) < self.gain:
            return skip_join(jobs, budget, now)
        return fill(sorted(jobs, key=by_arrival), budget)

    def ratio(self, budget: Budget) -> float:
        """Predicted mean completion time of feedback queues over that of first come, first served."""
        if budget.ended is not self._seen:  # only remembered: the answer depends on the budget alone
            self._seen, self._ratio = budget.ended, math.inf
            whole = [one for one in budget.ended if one.whole]
            if len(whole) >= self.least:
                self._ratio = predicted(whole, budget.cost, budget.sequences, self.load, first_quantum(0.0, budget))
        return self._ratio


def predicted(ended: Sequence[Ended], cost: StepCost, seats: int, load: float, quantum_s: float) -> float:
    """Both means for Poisson arrivals, requests like these, and a machine that is full when `seats` are taken."""
    rows = np.array([(one.prompt_tokens, one.generated) for one in ended], np.float64)
    step = cost.step_s / seats + cost.decode_s + float((rows[:, 0] + rows[:, 1] / 2).mean()) * cost.context_s
    work = np.sort(rows[:, 0] * cost.prefill_s + rows[:, 1] * step)  # machine seconds each
    if work[-1] <= 0:
        return 1.0
    rate = load / work.mean()
    quantum = quantum_s / seats  # of machine time
    busy = load ** (math.sqrt(2 * (seats + 1)) - 2)  # that all seats are taken, given the load
    alone = seats * work
    first = alone.mean() + busy * rate * (work**2).mean() / (2 * (1 - load))
    waits = [_feedback_wait(work, rate, quantum * phase) for phase in (1.0, 1.19, 1.41, 1.68)]  # no edge's chance
    return float((alone.mean() + busy * np.mean(waits)) / first)


def _feedback_wait(work: npt.NDArray[np.float64], rate: float, quantum: float) -> float:
    """Mean wait behind feedback queues. Queue p ends at edge[p]; who ends in it waits for all work up to edge[p] that
    is there, and then for what comes above."""
    top = max(1, math.ceil(math.log2(work[-1] / quantum + 1)))
    edge = quantum * (2.0 ** np.arange(top + 1) - 1)
    up_to = np.minimum(work[:, None], edge)
    share, square = rate * up_to.mean(0), (up_to**2).mean(0)
    at = np.clip(np.searchsorted(edge, work), 1, top)
    wait = (rate * square[at] / (2 * (1 - share[at])) + edge[at - 1]) / (1 - share[at - 1]) - edge[at - 1]
    return float(wait.mean())
