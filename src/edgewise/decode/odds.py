"""How often a draft model's guesses come true, learned while they are verified, and what a row of a pass costs."""

import math
from collections.abc import Iterable, Sequence

RANKS, BINS = 3, 16  # first choice, second, any later one; half a binary order of magnitude each
PRIOR, MOST = 4.0, 256.0  # observations that the prior is worth, and that are remembered
LEAST = 1e-6
SURER = 0.4  # of the guess: a first choice is right more often than the model is sure


class Odds:
    """The chance that a draft's choice is the target's, by its rank and by the draft's own confidence in it.

    A draft that learned a target's soft predictions is right far more often than it is sure when the target decodes
    greedily, a poor one less often; a chain's chance is a product of these, so that the error grows with depth."""

    def __init__(self) -> None:
        self._tries = [0.0] * (RANKS * BINS)
        self._hits = [0.0] * (RANKS * BINS)

    @staticmethod
    def key(rank: int, confidence: float) -> int:
        """The class of a choice, rank 0 the draft's first; confidence in [0, 1]."""
        return min(rank, RANKS - 1) * BINS + min(BINS - 1, int(-2 * math.log2(max(confidence, LEAST))))

    def chance(self, key: int, confidence: float) -> float:
        """In (0, 1): what was seen of the class, and before much was, a guess."""
        guess = confidence**SURER if key < BINS else confidence
        chance = (self._hits[key] + PRIOR * guess) / (self._tries[key] + PRIOR)
        return min(1 - LEAST, max(LEAST, chance))

    def saw(self, keys: Iterable[int], right: int) -> None:
        """keys: of the choices at one place, in order; the right-th came true, -1: none."""
        for at, key in enumerate(keys):
            if self._tries[key] >= MOST:
                self._tries[key] /= 2
                self._hits[key] /= 2
            self._tries[key] += 1
            self._hits[key] += at == right


class RowCost:
    """Seconds that one more row adds to a pass: the slope of a line through passes that fades with age."""

    FADE, STEADY, FIRST = 0.98, 2000.0, 0.004

    def __init__(self) -> None:
        self._sums: Sequence[float] = (0.0,) * 5  # of weights, rows, seconds, rows squared, rows by seconds

    def saw(self, rows: int, seconds: float) -> None:
        count, _, y, _, _ = self._sums
        if count:  # a disk that stalls says nothing of rows
            seconds = min(seconds, 1.5 * y / count)
        new = (1.0, rows, seconds, rows * rows, rows * seconds)
        self._sums = tuple(self.FADE * old + one for old, one in zip(self._sums, new, strict=True))

    @property
    def seconds(self) -> float:
        """Held to a small part of a pass until passes of different sizes were seen."""
        count, x, y, xx, xy = self._sums
        if not count:
            return 0.0
        spread, slope = xx - x * x / count, xy - x * y / count
        return max(0.0, (slope + self.STEADY * self.FIRST * y / count) / (spread + self.STEADY))
