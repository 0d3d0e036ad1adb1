"""Contracts of plan: who decides what to measure next."""

from dataclasses import dataclass
from typing import Protocol

from edgewise.kernels.tuning import Knobs

__all__ = ["Knobs", "Reading", "Tuner", "Tuning"]


@dataclass(frozen=True)
class Reading:
    """One measured pair: a candidate, and the default right before or after it."""

    seconds: float
    default_s: float

    @property
    def gain(self) -> float:
        """Above 1: the candidate was faster."""
        return self.default_s / self.seconds


class Tuner(Protocol):
    """Finds the fastest of some candidates. The default is none of them, and the best until another has won.

    Built with `candidates`, a sequence of Knobs. Replayable: the same readings lead to the same questions.
    """

    def ask(self) -> Knobs | None: ...  # whom to measure next; None: it has made up its mind

    def tell(self, knobs: Knobs, reading: Reading | None) -> None: ...  # None: never ask for these again

    def best(self) -> Knobs: ...  # so far; empty: the default

    def left(self) -> int: ...  # questions at most


class Tuning(Protocol):
    """Measures between the steps of a model, with the device that runs it, while nothing else does."""

    def spend(self, seconds: float) -> bool: ...  # for about so long; True: nothing is left to do
