"""`edgewise bench kv`: what paging saves, what it costs, and what a known prefix is worth.

Paper:  Kwon et al., PagedAttention, 2023, arXiv:2309.06180; deci.ai's notes on prompt-length variance
Exact.  It measures only.
Needs:  a model of 2048 tokens of context for the timed half; the counted half needs none
Cost:   seconds of one core, then some seconds of all cores
Status: kept
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import Request, SamplingParams, SeqId
from edgewise.engine.api import Work
from edgewise.kernels.api import AttnSpec, SeqRows
from edgewise.serve.drawing import curves
from edgewise.serve.options import Json, Threads, table


def measure_kv(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    mix: Annotated[str, typer.Option(help="load of the counted half: lognormal, reasoning, a CSV, ...")] = "lognormal",
    requests: Annotated[int, typer.Option("-n", min=2, help="of the counted half")] = 64,
    slots: Annotated[int, typer.Option(min=1, help="slots of full length that the memory would hold")] = 8,
    context: Annotated[int, typer.Option(min=64, help="tokens of a slot")] = 4608,
    prefix: Annotated[int, typer.Option(min=32, help="tokens of the known prefix")] = 2000,
    rounds: Annotated[int, typer.Option(min=1, help="interleaved pairs of the timed half; 0 skips it")] = 5,
    threads: Threads = None,
    timed: Annotated[bool, typer.Option(help="run the timed half")] = True,
    svg: Annotated[Path | None, typer.Option(help="draw the times of the attention of a decode step")] = None,
    as_json: Json = False,
) -> None:
    """reserved_over_used: KV room taken over tokens kept, paged and in slots of full length; sequences: at once in the
    same memory. The rest are times and their ratios, of a decode step and of its attention alone: pages over one
    contiguous run, pages in any order over that, ten times the pool over one, int8 over the default; hit over miss."""
    row = counted(mix, requests, slots, context)
    if timed:
        row |= timings(model, prefix, rounds, threads, svg)
    if as_json:
        print(json.dumps([row], indent=1))
        return
    body = [[name, f"{value:.3f}" if isinstance(value, float) else str(value)] for name, value in row.items()]
    print(table([["what", "value"], *body], {1}))


def counted(mix: str, requests: int, slots: int, context: int) -> dict[str, Any]:
    """Everybody asks at once; the memory is that of `slots` sequences of full length."""
    from edgewise.engine.policies import POLICIES
    from edgewise.serve.calibrate import COST
    from edgewise.sim.load import Arrival, load
    from edgewise.sim.play import play, twin

    asked = [Arrival(0.0, one.prompt_tokens, one.output_tokens) for one in load(mix, requests)]
    engine, clock = twin(
        POLICIES.build("fcfs"), COST, sequences=requests, tokens=slots * context, context=context, rows=2048
    )
    shares: list[float] = []
    slot_shares: list[float] = []
    at_once: list[int] = []

    def look() -> None:
        held = engine.kv.pages.holdings.values()  # type: ignore[attr-defined]
        used = sum(one.length for one in held)
        if used:
            shares.append(sum(len(one.view) for one in held) * 16 / used)
            slot_shares.append(len(held) * context / used)
            at_once.append(len(held))

    play(engine, clock, asked, watch=look)
    full = [count for count in at_once if count >= 0.5 * max(at_once)]  # while there is more to do than room
    return {
        "mix": mix, "requests": requests, "reserved_over_used": statistics.fmean(shares),
        "slots_reserved_over_used": statistics.fmean(slot_shares), "sequences": statistics.fmean(full),
        "slots": slots, "sequences_over_slots": statistics.fmean(full) / slots, "preempted": engine.preempted,
    }  # fmt: skip


ARMS = ("contiguous", "paged", "large", "scattered", "int8")


def timings(
    model: str | None, prefix: int, rounds: int, threads: int | None, svg: Path | None = None
) -> dict[str, Any]:
    """Medians of interleaved pairs on a model."""
    from edgewise.embedded import embedded_model
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    with LLM(path, threads=threads, max_num_seqs=4) as llm:
        length = min(llm.context - 64, prefix) // 16 * 16
        arms = Arms(llm.parts, length)
        steps, attention = arms.compare(arms.decode, rounds), arms.compare(arms.attend, rounds)
        row: dict[str, Any] = {"model": llm.name, "tokens": length, "kv": llm.parts.kv_dtype}
        for name, taken in (("decode", steps), ("attention", attention)):
            row |= {
                f"{name}_us": taken["paged"] * 1e6,
                f"{name}_paged_over_contiguous": taken["paged/contiguous"],
                f"{name}_scattered_over_contiguous": taken["scattered/contiguous"],
                f"{name}_pool_x10_over_x1": taken["large/paged"],
                f"{name}_int8_over_{llm.parts.kv_dtype}": taken["int8/paged"],
            }
        if svg is not None:
            drawn = {name: sorted(times) for name, times in arms.taken.items()}
            curves(svg, drawn, f"{llm.name}, {length} tokens: attention of a decode step done within", "seconds")
        row["int8_bytes"] = arms.caches["int8"].token_bytes / arms.caches["paged"].token_bytes
        return row | first_tokens(llm, length, rounds)


class Arms:
    """The same text of `length` tokens in caches that differ in where their pages lie, or in what they hold."""

    def __init__(self, parts: Any, length: int, steps: int = 16) -> None:
        from edgewise.kv import CACHES

        self.parts, self.length, self.steps = parts, length, steps
        self.seq = SeqId(-2)
        self.taken: dict[str, list[float]] = {}  # of the last comparison
        self.tokens = np.random.default_rng(1).integers(0, parts.spec.vocab, length + steps).tolist()
        room = -(-(length + 64) // 16)
        shapes = {
            "contiguous": (1, room * 16), "paged": (room, 16), "large": (10 * room, 16), "scattered": (4 * room, 16),
            "int8": (room, 16),
        }  # fmt: skip
        spec = parts.spec
        self.caches: dict[str, Any] = {
            name: CACHES.build(
                "paged", device=parts.device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim,
                pages=pages, page_tokens=size, dtype="int8" if name == "int8" else parts.kv_dtype,
            )
            for name, (pages, size) in shapes.items()
        }  # fmt: skip
        self.runners = {name: type(parts.runner)(parts.model, kv, parts.device) for name, kv in self.caches.items()}
        np.random.default_rng(2).shuffle(self.caches["scattered"].pages._free)  # as after much coming and going
        for name, kv in self.caches.items():
            kv.open(self.seq, ())
            kv.reserve(self.seq, length + steps)
            for past in range(0, length, 512):
                self.runners[name].step([Work(self.seq, self.tokens[past : min(length, past + 512)], past, 0)])

    def decode(self, name: str, at: int) -> None:
        self.runners[name].step([Work(self.seq, self.tokens[self.length + at :][:1], self.length + at, 1)])

    def attend(self, name: str, at: int) -> None:
        """What a decode step asks of the cache, and nothing else."""
        spec, device, kv = self.parts.spec, self.parts.device, self.caches[name]
        numbers = np.random.default_rng(at)
        q, k, v = (
            device.upload(numbers.standard_normal((1, heads * spec.head_dim), np.float32))
            for heads in (spec.heads, spec.kv_heads, spec.kv_heads)
        )
        plan = kv.begin([SeqRows(self.seq, 0, 1, self.length)])
        for layer in range(spec.layers):
            kv.attend(AttnSpec(layer, spec.heads, spec.kv_heads, spec.head_dim, spec.head_dim**-0.5), q, k, v, plan)

    def compare(self, run: Callable[[str, int], None], rounds: int) -> dict[str, float]:
        """arm → median seconds; "arm/other" → median ratio within a turn: one call of each, in changing order."""
        turns: list[dict[str, float]] = []
        for turn in range(rounds + 1):
            for kv in self.caches.values():
                if kv.length(self.seq) > self.length:
                    kv.rewind(self.seq, self.length)
                kv.reserve(self.seq, self.length + self.steps)
            for at in range(self.steps):
                taken = {}
                first = (turn + at) % len(ARMS)
                order = (*ARMS[first:], *ARMS[:first])
                for name in order if at % 2 else reversed(order):
                    begin = time.perf_counter()
                    run(name, at)
                    taken[name] = time.perf_counter() - begin
                if turn:  # the first round warms up
                    turns.append(taken)
        self.taken = {name: [taken[name] for taken in turns] for name in ARMS}
        found = {name: statistics.median(taken[name] for taken in turns) for name in ARMS}
        pairs = (*((name, "contiguous") for name in ARMS[1:]), ("large", "paged"), ("int8", "paged"))
        return found | {f"{a}/{b}": statistics.median(taken[a] / taken[b] for taken in turns) for a, b in pairs}


def first_tokens(llm: Any, length: int, rounds: int) -> dict[str, float]:
    """Time to the first token: of a known prompt over an unknown one, and of that over a cache that knows none."""
    engine, numbers = llm.parts.engine, np.random.default_rng(0)

    def once(tokens: list[int]) -> float:
        begin = time.perf_counter()
        engine.add(Request(tuple(tokens), SamplingParams(temperature=0.0, max_tokens=1), "one"))
        while engine.has_work():
            engine.step()
        return time.perf_counter() - begin

    def fresh() -> list[int]:
        return numbers.integers(0, llm.parts.spec.vocab, length + 16).tolist()  # type: ignore[no-any-return]

    hits, costs = [], []
    for turn in range(2 * rounds + 1):
        known, taken = fresh(), {}
        for reuse in (True, False) if turn % 2 else (False, True):
            engine.kv.pages.reuse = reuse
            taken[reuse] = once(known if reuse else fresh())
        engine.kv.pages.reuse = True
        if turn:  # the first warms up
            hits.append(once(known) / taken[True])
            costs.append(taken[True] / taken[False])
    return {
        "hit_over_miss_ttft": statistics.median(hits), "all_miss_over_no_reuse": statistics.median(costs),
    }  # fmt: skip
