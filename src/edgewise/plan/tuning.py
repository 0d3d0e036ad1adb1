"""Tunes the kernels of a device between the steps of a model, on the model's own weights.

What the device was asked to multiply says what is worth tuning. Each matmul gets candidates (candidates.py) and a
tuner; a candidate that differs from the standard in any bit is out. `spend` measures for a moment and leaves the device
with the best that is known, so that it may stand between any two steps: tokens cannot change, they only come faster.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels.tuning import Knobs, Matmul, Seen, Tunable, Tuned
from edgewise.plan.api import Reading, Tuner
from edgewise.plan.candidates import candidates
from edgewise.plan.choices import bits
from edgewise.plan.store import Store

SAMPLE_S = 4e-4  # a sample is at least so long, when there are weights enough
MOST_SAMPLE_S = 0.05  # a matmul that takes longer is not tuned: it would stop a server
MOST_COLUMNS = (1, 2, 4, 8, 32, 72)  # that are measured, by range


@dataclass
class Task:
    """One matmul being tuned."""

    matmul: Matmul
    columns: int
    uses: int
    tuner: Tuner
    x: Any = None
    want: bytes = b""  # the standard's result
    refused: int = 0  # candidates whose bits differ
    candidates: int = 0
    pairs: int = 0
    turn: int = 0  # which weight comes next
    once_s: float = 0.0  # one matmul with the standard
    checked: list[Knobs] = field(default_factory=list)
    gains: dict[tuple[tuple[str, int], ...], list[float]] = field(default_factory=dict)
    default_s: list[float] = field(default_factory=list)

    def note(self, knobs: Knobs, reading: Reading) -> None:
        self.gains.setdefault(tuple(sorted(knobs.items())), []).append(reading.gain)
        self.default_s.append(reading.default_s)
        self.pairs += 1

    def gain(self) -> float:
        """Of the best over the default, by the newer half of its readings: the older ones chose it."""
        gains = self.gains.get(tuple(sorted(self.tuner.best().items())), [])
        return statistics.median(gains[len(gains) // 2 :]) if gains else 1.0

    def entry(self) -> dict[str, Any]:
        """What the store keeps."""
        return {
            **self.matmul._asdict(), "knobs": dict(self.tuner.best()), "gain": self.gain(), "columns": self.columns,
            "candidates": self.candidates, "refused": self.refused, "pairs": self.pairs,
            "default_us": statistics.median(self.default_s or [0.0]) * 1e6,
        }  # fmt: skip


class KernelTuning:
    """make: candidates → Tuner. store: what is in it is not tuned again. cache_bytes: more weights than that do not
    stay in the caches from one step to the next, so none of them may do so between two samples. choose: which settings
    a matmul may get; none of them: it is passed over."""

    def __init__(
        self,
        device: Tuned,
        make: Callable[[Sequence[Knobs]], Tuner],
        store: Store,
        *,
        cache_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
        choose: Callable[[Matmul, Knobs, int], Sequence[Knobs]] = candidates,
    ) -> None:
        self.choose = choose
        self.device = device
        self.make = make
        self.store = store
        self.cache_bytes = cache_bytes
        self.clock = clock
        self.tasks: dict[Matmul, Task] = {}
        self.done: dict[Matmul, Task] = {}
        self._skipped: set[Matmul] = set()
        self._credit = 0.0
        self._side = itertools.cycle((False, True))  # who of a pair is first

    # ── what there is to do ─────────────────────────────────────────────────────────────

    def look(self) -> int:
        """Notices what the device has multiplied since; how many matmuls are waiting or being tuned."""
        for seen in self.device.matmuls():
            self._notice(seen)
        return len(self.tasks)

    def _notice(self, seen: Seen) -> None:
        matmul = seen.matmul
        if matmul in self.tasks:
            self.tasks[matmul].uses = seen.uses
            return
        if matmul in self.done or matmul in self._skipped or self.store.get("kernels", matmul.key) is not None:
            return
        choices = self.choose(matmul, self.device.standard(matmul), self.device.info.threads)
        if not choices:
            self._skipped.add(matmul)
            return
        columns = min(seen.columns, MOST_COLUMNS[matmul.range])
        self.tasks[matmul] = Task(matmul, columns, seen.uses, self.make(choices), candidates=len(choices))

    def left(self) -> int:
        """Pairs still to be measured, at most."""
        return sum(task.tuner.left() for task in self.tasks.values())

    def left_s(self) -> float:
        """Seconds that those will take, as far as known."""
        return sum(2 * max(task.once_s, SAMPLE_S) * task.tuner.left() for task in self.tasks.values())

    # ── measuring ───────────────────────────────────────────────────────────────────────

    def spend(self, seconds: float) -> bool:
        """Measures for about so long, over several calls if that is short. True: all that was seen is tuned."""
        if not self.look():
            return True
        self._credit += seconds
        while self.tasks and self._credit > 0:
            # The one with the largest share of the model's time first; what is done makes room.
            task = max(self.tasks.values(), key=lambda t: (t.once_s == 0, t.uses * t.once_s))
            begin = self.clock()
            self._pair(task)
            self._credit -= max(self.clock() - begin, 1e-6)
        return not self.tasks

    def _pair(self, task: Task) -> None:
        weights = self.device.weights_of(task.matmul)
        if not weights:  # the model is gone
            del self.tasks[task.matmul]
            return
        if task.x is None and not self._begin(task, weights):
            return
        knobs = task.tuner.ask()
        if knobs is None:
            self._finish(task)
            return
        if knobs not in task.checked:
            task.checked.append(knobs)
            self.device.tune(task.matmul, knobs)
            same = bits(self.device.download(self.device.linear(task.x, weights[0]))) == task.want
            self.device.tune(task.matmul, {})
            if not same:
                task.refused += 1
                task.tuner.tell(knobs, None)
                return
        order: list[Knobs] = [knobs, {}] if next(self._side) else [{}, knobs]
        taken = [self._sample(task, weights, each) for each in order]
        self.device.tune(task.matmul, {})
        seconds, default_s = taken if order[0] == knobs else reversed(taken)
        reading = Reading(seconds, default_s)
        task.note(knobs, reading)
        task.tuner.tell(knobs, reading)
        if task.tuner.ask() is None:
            self._finish(task)

    def _begin(self, task: Task, weights: Sequence[Any]) -> bool:
        numbers = np.random.default_rng(0)
        task.x = self.device.upload(numbers.normal(size=(task.columns, task.matmul.cols)).astype(np.float32))
        self.device.tune(task.matmul, {})
        task.want = bits(self.device.download(self.device.linear(task.x, weights[0])))
        begin = self.clock()
        self.device.linear(task.x, weights[0])
        task.once_s = self.clock() - begin
        if task.once_s > MOST_SAMPLE_S:
            self.tasks.pop(task.matmul, None)
            self._skipped.add(task.matmul)
            return False
        return True

    def _sample(self, task: Task, weights: Sequence[Any], knobs: Knobs) -> float:
        """Seconds of one matmul, over weights that were not used for as long as possible."""
        count = max(1, min(len(weights), round(SAMPLE_S / max(task.once_s, 1e-7))))
        group = [weights[(task.turn + i) % len(weights)] for i in range(count)]
        task.turn = (task.turn + count) % len(weights)
        if task.columns <= 8:  # else arithmetic outweighs reading
            self._evict(task.matmul, sum(w.nbytes for w in weights))
        self.device.tune(task.matmul, knobs)
        begin = self.clock()
        for w in group:
            self.device.linear(task.x, w)
        return (self.clock() - begin) / count

    def compare(self, matmul: Matmul, columns: int, settings: Sequence[Knobs], rounds: int) -> list[list[float]]:
        """Seconds of one matmul with each of the settings, by round, in turns; leaves the standard."""
        weights = self.device.weights_of(matmul)
        task = Task(matmul, columns, 0, self.make(()))
        if not weights:
            raise BadInput(f"There is no weight for {matmul.key} on this device any more.")
        self._begin(task, weights)
        taken: list[list[float]] = [[] for _ in settings]
        for turn in range(rounds):
            for i in range(len(settings)):
                at = (i + turn) % len(settings)
                taken[at].append(self._sample(task, weights, settings[at]))
        self.device.tune(matmul, {})
        return taken

    def _evict(self, matmul: Matmul, cycle: int) -> None:
        """Reads other weights until these are out of the caches, where a whole step would have done so."""
        if cycle > 2 * self.cache_bytes:
            return
        once = [seen.matmul for seen in self.device.matmuls() if seen.matmul.range == 0]  # each weight once
        others = [other for other in once if other[:3] != matmul[:3]]
        read = 0
        for other in sorted(others, key=lambda m: -m.rows * m.cols):
            for w in self.device.weights_of(other):
                self.device.linear(self._row(other.cols), w)
                read += w.nbytes
                if read > 3 * self.cache_bytes // 2:
                    return

    def _row(self, cols: int) -> Any:
        return self.device.upload(np.ones((1, cols), np.float32))

    def _finish(self, task: Task) -> None:
        """Remembers the winner. A tuner that was never told anything has nothing to say."""
        del self.tasks[task.matmul]
        task.x = None
        if not task.pairs and not task.refused:
            self._skipped.add(task.matmul)
            return
        self.done[task.matmul] = task
        self.device.tune(task.matmul, task.tuner.best())
        self.store.put("kernels", {task.matmul.key: task.entry()})

    def stop(self) -> None:
        """What is unfinished keeps its standard, and is tuned another time."""
        for task in self.tasks.values():
            self.device.tune(task.matmul, {})
        self.tasks.clear()


def apply_stored(device: Tunable, store: Store) -> int:
    """Sets what was found before, and says how many matmuls that are. An entry that makes no sense is passed over."""
    applied = 0
    for entry in store.entries("kernels").values():
        try:
            matmul = Matmul(str(entry["format"]), int(entry["rows"]), int(entry["cols"]), int(entry["range"]))
            knobs = entry["knobs"]
            if isinstance(knobs, dict) and knobs:
                device.tune(matmul, knobs)
                applied += 1
        except (BadInput, KeyError, TypeError, ValueError):
            continue
    return applied
