"""What the machine can do at this moment: read bandwidth, int8 and bfloat16 rates, the way from core to core.

On shared machines all of these change by themselves, bandwidth in two distinct states on some: hence a probe before
and after every pair, and the ratio of each state by itself.
"""

import json
import math
import os
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgewise.serve.probe import read_bandwidth

HERE = Path(__file__).resolve().parent
TWO_STATES = 1.3  # median of the fast probes over that of the slow ones, from which on they are two states
GAP = 1.1  # slowest of the fast over fastest of the slow
FEW = 0.15  # share of the samples that a state must have


@dataclass(frozen=True)
class Probe:
    """all_gb_s: what two threads read, or more where the engines use more. gb_s: what as many as the engines' read."""

    all_gb_s: float
    gb_s: float
    int8_gops: float | None
    bf16_gflops: float | None
    round_trip_ns: float | None

    def as_json(self) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 2) for name, value in asdict(self).items()}


class Prober:
    """threads: what the engines use. build: a folder for the compiled probe; without a compiler rates stay unknown."""

    def __init__(self, threads: int, build: Path) -> None:
        self.threads = threads
        self.all = max(threads, min(2, len(os.sched_getaffinity(0))))
        self.program = compiled(build)

    def __call__(self) -> Probe:
        everyone = read_bandwidth(self.all, passes=3)
        ours = everyone if self.threads == self.all else read_bandwidth(self.threads, passes=3)
        rates: dict[str, float] = {}
        if self.program:
            done = subprocess.run([self.program, str(self.threads)], capture_output=True, text=True, check=True)
            rates = json.loads(done.stdout)
        return Probe(everyone, ours, *(rates.get(name) for name in ("int8_gops", "bf16_gflops", "round_trip_ns")))


def compiled(build: Path) -> Path | None:
    """The arithmetic probe for this very CPU, compiled once; None where that does not work."""
    source, program = HERE / "rates.cc", build / "rates"
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    build.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++17", "-O2", "-march=native", "-pthread"]
    command = [os.environ.get("CXX", "c++"), *flags, str(source), "-o", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return program if done.returncode == 0 else None


def divide(samples: Iterable[float]) -> float | None:
    """The bandwidth between the slow and the fast state, or None where the samples show one state only.

    It lies in the widest gap that leaves enough samples on both sides: a few low ones come from other work.
    """
    seen = sorted(samples)
    least = max(2, math.ceil(len(seen) * FEW))
    places = range(least, len(seen) - least + 1)
    if not places:
        return None
    widest = max(places, key=lambda i: seen[i] / seen[i - 1])
    apart = statistics.median(seen[widest:]) / statistics.median(seen[:widest])
    if apart < TWO_STATES or seen[widest] / seen[widest - 1] < GAP:
        return None
    return math.sqrt(seen[widest - 1] * seen[widest])


def state(before: float, after: float, threshold: float | None) -> str:
    """The state of a pair by the probes around it: steady, slow, fast, or mixed where it changed in between."""
    if threshold is None:
        return "steady"
    if (before < threshold) != (after < threshold):
        return "mixed"
    return "slow" if before < threshold else "fast"


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
