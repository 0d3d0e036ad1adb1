"""What a step costs on a loaded model: a few timed steps of each kind, and a fit. Feeds the simulator."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from edgewise.base import SeqId
from edgewise.engine.api import StepCost, Work
from edgewise.engine.meter import solve
from edgewise.serve.measure import Loaded

PREFILLS = (16, 64, 128, 256, 512)
BATCHES = (1, 2, 4, 8)
CONTEXTS = (16, 512)


def measure_cost(engine: Loaded, rounds: int = 3, prefills: Sequence[int] = PREFILLS) -> StepCost:
    """The engine must be idle, with room for 8 sequences of 528 tokens. Medians of `rounds` interleaved passes."""
    rows: list[tuple[float, ...]] = []
    times: dict[tuple[int, int, int], list[float]] = {}
    numbers = np.random.default_rng(0)
    for turn in range(rounds + 1):
        for count in prefills:
            key = (count, 0, count)
            seconds = _step(engine, [(numbers.integers(0, engine.vocab, count).tolist(), 0)])
            times.setdefault(key, []).append(seconds)
        for past in CONTEXTS:
            for batch in BATCHES:
                work = [(numbers.integers(0, engine.vocab, past + 4).tolist(), past) for _ in range(batch)]
                times.setdefault((0, batch, batch * (past + 2)), []).append(_step(engine, work))
        if turn == 0:
            times.clear()  # warm-up
    for (prefill, decode, context), found in times.items():
        middle = statistics.median(found)
        rows.append((1 / middle, prefill / middle, decode / middle, context / middle))  # relative errors count
    work_matrix = np.array(rows)
    return StepCost(*solve(work_matrix.T @ work_matrix, work_matrix.sum(0)))


def _step(engine: Loaded, parts: Sequence[tuple[Sequence[int], int]]) -> float:
    """Seconds of one prefill, or the median of single-token steps after `past` tokens that are put there first."""
    runner, kv = engine.runner, engine.kv
    seqs = [SeqId(-2 - i) for i in range(len(parts))]
    for seq, (tokens, past) in zip(seqs, parts, strict=True):
        kv.open(seq, ())
        if past:
            kv.reserve(seq, past)
            runner.step([Work(seq, tokens[:past], 0, 0)])
    found = []
    prefill = parts[0][1] == 0
    try:
        for step in range(1 if prefill else len(parts[0][0]) - parts[0][1]):
            work = []
            for seq, (tokens, past) in zip(seqs, parts, strict=True):
                at = past + step
                end = len(tokens) if prefill else at + 1
                kv.reserve(seq, end)
                work.append(Work(seq, tokens[at:end], at, 1))
            begin = time.perf_counter()
            runner.step(work)
            runner.peaks()
            found.append(time.perf_counter() - begin)
    finally:
        for seq in seqs:
            kv.close(seq)
    return statistics.median(found)
