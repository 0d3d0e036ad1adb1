"""What a step costs on a loaded model: a few timed steps of each kind, and a fit. Feeds the simulator."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.engine.api import StepCost, Work
from edgewise.engine.meter import solve
from edgewise.serve.measure import Loaded

# A 1B model in Q4_0 on 2 vCPU Zen 4, shared (2026-11-21): `measure_cost`. A token of its KV cache takes 32 KiB.
COST = StepCost(0.022, 0.0035, 0.0036, 8e-6)
TOKEN_BYTES = 32 << 10
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


def step_cost(text: str | None, sequences: int) -> tuple[StepCost, int]:
    """(cost, bytes of a cached token): the committed figures, four numbers, or measured on a model."""
    if text is None:
        return COST, TOKEN_BYTES
    parts = text.split(",")
    if len(parts) == 4:
        try:
            return StepCost(*(float(part) for part in parts)), TOKEN_BYTES
        except ValueError:
            raise BadInput(f"--cost {text}: expected four numbers of seconds, or a model.") from None
    from edgewise.embedded import embedded_model
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    with LLM(embedded_model() if text == "embedded" else locate(text), ctx_size=600, max_num_seqs=9) as llm:
        return measure_cost(llm.parts.engine), llm.parts.kv.token_bytes  # type: ignore[attr-defined]
