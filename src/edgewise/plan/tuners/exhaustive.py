"""Exhaustive: every candidate as often as every other, then a duel of the best few. What other tuners are held against.

Paper:  none
Exact.  It only meets settings that give equal bits.
Needs:  a reading for each question
Cost:   rounds * n pairs for n candidates, and the duels'
Status: kept
"""

from collections.abc import Sequence

from edgewise.plan.api import Knobs, Reading
from edgewise.plan.duel import gain_of, won


class Exhaustive:
    """rounds: pairs for each candidate. finals: how many of the best meet the default again, in duel pairs each."""

    def __init__(
        self, candidates: Sequence[Knobs] = (), rounds: int = 16, finals: int = 3, duel: int = 33
    ) -> None:
        self.candidates = candidates
        self.rounds = rounds
        self.finals = finals
        self.duel = duel
        self._gains: dict[int, list[float]] = {i: [] for i in range(len(candidates))}
        self._duels: dict[int, list[float]] | None = None

    def _next(self) -> int | None:
        if self._duels is None:
            waiting = [i for i, gains in self._gains.items() if len(gains) < self.rounds]
            if waiting:
                return min(waiting, key=lambda i: len(self._gains[i]))
            ranked = sorted(self._gains, key=lambda i: -gain_of(self._gains[i]))
            self._duels = {i: [] for i in ranked[: self.finals]}
        waiting = [i for i, gains in self._duels.items() if len(gains) < self.duel]
        return min(waiting, key=lambda i: len(self._duels[i]) if self._duels else 0) if waiting else None

    def ask(self) -> Knobs | None:
        at = self._next()
        return None if at is None else self.candidates[at]

    def tell(self, knobs: Knobs, reading: Reading | None) -> None:
        at = next(i for i, known in enumerate(self.candidates) if known == knobs)
        if reading is None:
            self._gains.pop(at, None)
            if self._duels is not None:
                self._duels.pop(at, None)
        else:
            (self._gains if self._duels is None else self._duels)[at].append(reading.gain)

    def best(self) -> Knobs:
        if self._next() is not None or not self._duels:
            return {}
        at = max(self._duels, key=lambda i: gain_of(self._duels[i]) if self._duels else 0)
        return self.candidates[at] if won(self._duels[at]) else {}

    def left(self) -> int:
        if self._duels is not None:
            return sum(self.duel - len(gains) for gains in self._duels.values())
        open_pairs = sum(self.rounds - len(gains) for gains in self._gains.values())
        return open_pairs + min(self.finals, len(self._gains)) * self.duel
