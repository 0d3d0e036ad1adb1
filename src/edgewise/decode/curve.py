"""What a pass of N rows costs, as measured so far: the verify-cost curve T(N), and the sizes of drafts it pays for."""

from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from itertools import pairwise
from math import sqrt

from edgewise.decode.api import Accepted, Spent

LATEST = 9  # measurements of which the median is taken
SLOPE = 0.02  # of T(1), for each row beyond those seen, at least
UNSEEN = 16  # rows, or four for each sequence, or twice those that were measured: as far ahead costs may be guessed
LEAST = 0.002  # of what a step reaches, is what a row has to add to be looked at
EXACT = 32  # rows from here on are measured in eights
FEW = 5  # measurements that are not many
NOISE = 0.01  # of a pass's seconds, by which nothing is reckoned anew


class Late:
    """The median of the latest measurements: somebody else may take the machine for a while. 0 before the first."""

    __slots__ = ("_latest", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._latest: deque[float] = deque(maxlen=LATEST)

    def __len__(self) -> int:
        return len(self._latest)

    def saw(self, value: float) -> None:
        self._latest.append(value)
        self.value = sorted(self._latest)[(len(self._latest) - 1) // 2]  # of two the smaller one


class VerifyCurve:
    def __init__(self) -> None:
        self.points: dict[int, float] = {}  # seconds of passes by their rows
        self._measured: dict[int, float] = {}
        self._latest: dict[int, Late] = {}
        self._rows: list[int] = []  # those of points, ascending

    def saw(self, rows: int, seconds: float) -> None:
        key = rows if rows <= EXACT else -(-rows // 8) * 8
        latest = self._latest.get(key)
        if latest is None:
            latest = self._latest[key] = Late()
            insort(self._rows, key)
        latest.saw(seconds)
        if len(latest) > FEW and abs(latest.value - self._measured[key]) < NOISE * latest.value:
            return
        self._measured[key] = latest.value
        self.points = self._likely()

    def _likely(self) -> dict[int, float]:
        """What was measured, less what only a machine that was busy explains: no pass takes longer than a wider one,
        and no row of a pass more than one of a narrower pass. Of a pass that was seen but a few times is believed that
        it is no slower than a straight line between those around it that were seen often: else it is not tried again.
        """
        likely, least = {}, float("inf")
        for rows in reversed(self._rows):
            likely[rows] = least = min(least, self._measured[rows])
        least = float("inf")
        for rows in self._rows:
            least = min(least, likely[rows] / rows)
            likely[rows] = least * rows
        often = [rows for rows in self._rows if len(self._latest[rows]) >= FEW]
        for below, above in pairwise(often):
            for rows in self._rows[bisect(self._rows, below) : bisect(self._rows, above) - 1]:
                part = (rows - below) / (above - below)
                likely[rows] = min(likely[rows], likely[below] + part * (likely[above] - likely[below]))
        return likely

    @property
    def most(self) -> int:
        """Rows of the widest pass that was measured."""
        return self._rows[-1] if self._rows else 0

    def near(self, rows: int) -> bool:
        """A pass of about so many rows was measured."""
        at = bisect(self._rows, rows)
        return any(4 * abs(rows - known) <= rows for known in self._rows[max(0, at - 1) : at + 1])

    def seconds(self, rows: int) -> float:
        """Straight lines between what was measured; it never falls. 0 when nothing was."""
        points, known = self.points, self._rows
        if rows in points:
            return points[rows]
        if not known:
            return 0.0
        at = bisect(known, rows)
        if not at:
            return points[known[0]]
        below = known[at - 1]
        if at < len(known):
            part = (rows - below) / (known[at] - below)
            return points[below] + part * max(0.0, points[known[at]] - points[below])
        before = known[bisect(known, below // 2) - 1] if known[0] <= below // 2 else known[0]  # neighbours err together
        slope = (points[below] - points[before]) / (below - before) if before < below else 0.0
        return points[below] + (rows - below) * max(slope, SLOPE * points[known[0]] / known[0])


def best_sizes(
    curve: VerifyCurve, worths: Sequence[Sequence[float]], budget: int, fixed_s: float, level_s: float = 0.0
) -> tuple[list[int], float]:
    """How much to draft for each sequence so that tokens a second are most, and how many times those without drafts.
    What sequences get is averaged by their roots, squared: better some for many than much for one whom all wait for.

    worths: of each sequence what the nodes that may be drafted for it should bring, in tokens, one after the other.
    fixed_s: what drafting costs in any case; level_s: for each node of the longest draft."""
    count = len(worths)
    plain = curve.seconds(count)
    sizes = [0] * count
    best, gain = sizes[:], 1.0
    if plain <= 0:
        return best, gain
    made = [1.0] * count
    ahead = [(1 - sqrt(1 + worth[0]), at) for at, worth in enumerate(worths) if worth]
    heapify(ahead)
    reached, longest, rows = float(count), 0, count
    most = min(count + budget, max(UNSEEN, 5 * count, 2 * curve.most))
    while ahead and rows < most:
        less, at = ahead[0]
        reached -= less
        made[at] += worths[at][sizes[at]]
        sizes[at] += 1
        rows += 1
        longest = max(longest, sizes[at])
        if sizes[at] < len(worths[at]):
            heapreplace(ahead, (sqrt(made[at]) - sqrt(made[at] + worths[at][sizes[at]]), at))
        else:
            heappop(ahead)
        if less > -LEAST * reached:
            break
        now = (reached / count) ** 2 * plain / (max(plain, curve.seconds(rows)) + fixed_s + longest * level_s)
        if now > gain:
            best, gain = sizes[:], now
    return best, gain


class Rival:
    """Which of two ways gives more tokens a second, as measured: both are tried, the better one goes on, and the other
    is tried again after 32 steps, then 64 and so on."""

    TRIAL, PAUSE, LONGEST = 6, 32, 1024

    def __init__(self) -> None:
        self.first = True  # the way that is taken now
        self._best = True
        self._left, self._pause = self.TRIAL, self.PAUSE
        self._rates: dict[bool, float] = {}
        self._seen = (0.0, 0.0)  # tokens and seconds of the way that is taken now

    def heard(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        """Of a step, as speculators are told; those that read prompts do not count."""
        if outcomes and not spent.prefill:
            self.saw(sum(len(one.tokens) for one in outcomes) / len(outcomes), spent.draft_s + spent.pass_s)

    def saw(self, tokens: float, seconds: float) -> None:
        """What a step of the way that is taken gave for each sequence."""
        made, spent = self._seen
        self._seen = (made + tokens, spent + seconds)
        self._left -= 1
        if self._left > 0:
            return
        if self._seen[1] > 0:
            self._rates[self.first] = self._seen[0] / self._seen[1]
        self._seen = (0.0, 0.0)
        if len(self._rates) < 2:  # the other one's first trial
            self.first, self._left = not self.first, self.TRIAL
            return
        better = self._rates[True] > self._rates[False]
        if self.first != self._best or better != self._best:  # a trial is over, or what was better no longer is
            self._pause = self.PAUSE if better != self._best else min(2 * self._pause, self.LONGEST)
            self.first = self._best = better
            self._left = self._pause
        else:
            self.first, self._left = not better, self.TRIAL
