"""Which of several kernels with equal results to run: a question that only a measurement on this machine answers.

The kernels ask; the answers come from above (plan/choices.py, handed in by assemble.py).
"""

from collections.abc import Callable
from typing import NamedTuple

RANGES = (1, 2, 4, 8, 64)  # the most columns of each range; the last range has no end


def range_of(columns: int) -> int:
    """Which range so many columns belong to: 0 to len(RANGES)."""
    return sum(columns > most for most in RANGES)


def range_name(at: int) -> str:
    """ "1", "2", "3-4", "5-8", "9-64", "65+"."""
    least = RANGES[at - 1] + 1 if at else 1
    if at == len(RANGES):
        return f"{least}+"
    return str(least) if least == RANGES[at] else f"{least}-{RANGES[at]}"


class Question(NamedTuple):
    """what: the kind of choice, for example "lookup". A weight (rows, cols) of a format meets `columns` rows of x."""

    what: str
    format: str
    rows: int
    cols: int
    columns: int

    @property
    def key(self) -> str:
        """Equal for all numbers of columns of one range."""
        return f"{self.what} {self.format} {self.rows}x{self.cols} n={range_name(range_of(self.columns))}"


Known = Callable[[Question], str | None]  # the name of the fastest, None where nobody has measured


def nothing_known(question: Question) -> str | None:
    return None
