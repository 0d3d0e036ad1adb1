"""Successive halving: all candidates are measured a little, the better half twice as much, and so on; then a duel.

Paper:  Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016;
        as the search of nn-JIT.web, arXiv 2309.08978
Exact.  It only meets settings that give equal bits.
Needs:  a reading for each question
Cost:   about n * log2(n) pairs for n candidates, and the duel's
Status: kept
"""

from collections.abc import Sequence

from edgewise.plan.api import Knobs, Reading
from edgewise.plan.duel import gain_of, won

FEW_PAIRS, SLOWER = 0.9, 0.98  # gains after one or two pairs, and after more, from which nobody comes back


class SuccessiveHalving:
    """first: pairs of the first round for each candidate. duel: pairs of the last decision."""

    def __init__(self, candidates: Sequence[Knobs] = (), first: int = 2, duel: int = 25) -> None:
        self.candidates = candidates
        self.first = first
        self.duel = duel
        self._alive = list(range(len(candidates)))
        self._gains: list[list[float]] = [[] for _ in candidates]
        self._goal = first  # pairs that each of the living needs before the next cut
        self._duel: list[float] | None = None  # of the one that is left
        self._decided = not candidates

    def ask(self) -> Knobs | None:
        if self._decided:
            return None
        if self._duel is not None:
            return self.candidates[self._alive[0]]
        at = min(self._alive, key=lambda i: len(self._gains[i]))
        return self.candidates[at]

    def tell(self, knobs: Knobs, reading: Reading | None) -> None:
        at = next(i for i, known in enumerate(self.candidates) if known == knobs)
        if reading is None:
            self._alive = [i for i in self._alive if i != at]
            self._duel = None
        elif self._duel is not None:
            self._duel.append(reading.gain)
        else:
            self._gains[at].append(reading.gain)
        self._settle()

    def _settle(self) -> None:
        while len(self._alive) > 1 and all(len(self._gains[i]) >= self._goal for i in self._alive):
            ranked = sorted(self._alive, key=lambda i: -gain_of(self._gains[i]))
            floor = FEW_PAIRS if self._goal <= 2 else SLOWER
            self._alive = [i for i in ranked[: (len(ranked) + 1) // 2] if gain_of(self._gains[i]) > floor]
            self._goal *= 2
        if not self._alive:
            self._decided = True
        elif len(self._alive) == 1 and self._duel is None:
            self._duel = []
        # A loser is seen early; a winner has to stand all of it.
        if self._duel is not None and len(self._duel) >= self.duel // 2 and gain_of(self._duel) < 1:
            self._decided = True
        if self._duel is not None and len(self._duel) >= self.duel:
            self._decided = True

    def best(self) -> Knobs:
        if self._duel is not None and len(self._duel) >= self.duel and won(self._duel):
            return self.candidates[self._alive[0]]
        return {}

    def left(self) -> int:
        if self._decided:
            return 0
        if self._duel is not None:
            return self.duel - len(self._duel)
        count, goal, alive, have = 0, self._goal, len(self._alive), sum(len(self._gains[i]) for i in self._alive)
        while alive > 1:
            count += alive * goal - min(have, alive * goal)
            alive, have, goal = (alive + 1) // 2, (alive + 1) // 2 * goal, goal * 2
        return count + self.duel
