"""How a candidate is compared with the default: by the median of paired gains, and anew once it was chosen.

Whoever is best of many was lucky as well. The winner therefore has to win a duel on readings that did not choose it.
"""

import statistics
from collections.abc import Sequence

GAIN = 1.02  # the median gain that a duel must show
SURE = 0.75  # of the pairs of a duel must be won


def gain_of(gains: Sequence[float]) -> float:
    """The median; 0 when nothing was measured."""
    return statistics.median(gains) if gains else 0.0


def won(gains: Sequence[float]) -> bool:
    return gain_of(gains) >= GAIN and sum(gain > 1 for gain in gains) >= SURE * len(gains)
