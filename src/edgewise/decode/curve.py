"""What a pass of N rows costs, as measured so far: the verify-cost curve T(N), and the depths it pays for."""

from collections import deque
from collections.abc import Sequence

from edgewise.decode.api import Accepted, Spent

LATEST = 9  # measurements of which the median is taken: somebody else may take the machine for a while
SLOPE = 0.02  # of T(1), for each row more, while only one number of rows was seen
EXACT = 32  # rows from here on are measured in eights


class VerifyCurve:
    def __init__(self) -> None:
        self.points: dict[int, float] = {}
        self._latest: dict[int, deque[float]] = {}

    def saw(self, rows: int, seconds: float) -> None:
        key = rows if rows <= EXACT else -(-rows // 8) * 8
        latest = self._latest.get(key)
        if latest is None:
            latest = self._latest[key] = deque(maxlen=LATEST)
        latest.append(seconds)
        self.points[key] = sorted(latest)[len(latest) // 2]

    def seconds(self, rows: int) -> float:
        """Straight lines between what was measured; it never falls. 0 when nothing was."""
        points = self.points
        if rows in points:
            return points[rows]
        below = max((n for n in points if n < rows), default=0)
        above = min((n for n in points if n > rows), default=0)
        if not below:
            return points[above] if above else 0.0
        if above:
            part = (rows - below) / (above - below)
            return points[below] + part * max(0.0, points[above] - points[below])
        before = max((n for n in points if n < below), default=0)
        slope = (points[below] - points[before]) / (below - before) if before else SLOPE * points[below] / below
        return points[below] + (rows - below) * max(slope, 0.0)


def best_depths(
    curve: VerifyCurve, chances: Sequence[float], most: Sequence[int], budget: int, fixed_s: float, level_s: float
) -> tuple[list[int], float]:
    """How deep to draft for each sequence so that tokens a second are most, and how many times those without drafts.

    chances: that a drafted token comes true, given those before it. most: deepest draft of each. fixed_s: what drafting
    costs in any case; level_s: for each level of depth that any of them reaches."""
    count = len(chances)
    plain = curve.seconds(count)
    depths = [0] * count
    best, gain = depths[:], 1.0
    if plain <= 0:
        return best, gain
    worth = [chance if some > 0 else 0.0 for chance, some in zip(chances, most, strict=True)]
    tokens, deepest = float(count), 0
    for rows in range(count + 1, count + 1 + min(budget, sum(most))):
        at = max(range(count), key=worth.__getitem__)
        if worth[at] <= 0:
            break
        tokens += worth[at]
        depths[at] += 1
        deepest = max(deepest, depths[at])
        worth[at] = worth[at] * chances[at] if depths[at] < most[at] else 0.0
        now = tokens / count * plain / (max(plain, curve.seconds(rows)) + fixed_s + deepest * level_s)
        if now > gain:
            best, gain = depths[:], now
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
