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
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import Request, SamplingParams, SeqId
from edgewise.engine.api import Work
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
    as_json: Json = False,
) -> None:
    """reserved_over_used: KV room taken over tokens kept, paged and in slots of full length; sequences: at once in the
    same memory. The rest are ratios of times: paged over contiguous, ten times the pool over one, hit over miss."""
    row = counted(mix, requests, slots, context)
    if timed:
        row |= timings(model, prefix, rounds, threads)
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


def timings(model: str | None, prefix: int, rounds: int, threads: int | None) -> dict[str, Any]:
    """Medians of interleaved pairs on a model."""
    from edgewise.embedded import embedded_model
    from edgewise.kv import CACHES
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    with LLM(path, threads=threads, ctx_size=0, max_num_seqs=4) as llm:
        parts, engine = llm.parts, llm.parts.engine
        length = min(parts.context - 64, prefix) // 16 * 16
        numbers = np.random.default_rng(0)

        def cache(pages: int, page_tokens: int = 16) -> Any:
            spec = parts.spec
            return CACHES.build(
                "paged", device=parts.device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim,
                pages=pages, page_tokens=page_tokens, dtype=parts.kv_dtype,
            )  # fmt: skip

        def decode(kv: Any, steps: int = 24) -> float:
            """Median seconds of a step after `length` tokens."""
            runner = type(parts.runner)(parts.model, kv, parts.device)
            tokens = np.random.default_rng(1).integers(0, parts.spec.vocab, length + steps).tolist()
            seq, found = SeqId(-2), []
            kv.open(seq, ())
            kv.reserve(seq, length + steps)
            for past in range(0, length, 512):
                part = tokens[past : min(length, past + 512)]
                runner.step([Work(seq, part, past, 0)])
            for at in range(length, length + steps):
                begin = time.perf_counter()
                runner.step([Work(seq, tokens[at : at + 1], at, 1)])
                found.append(time.perf_counter() - begin)
            kv.close(seq)
            return statistics.median(found)

        room = -(-(length + 64) // 16)
        whole = room * 16
        small, contiguous, large = cache(room), cache(1, whole), cache(10 * room)

        def first_token(tokens: list[int]) -> float:
            begin = time.perf_counter()
            engine.add(Request(tuple(tokens), SamplingParams(temperature=0.0, max_tokens=1), "one"))
            while engine.has_work():
                engine.step()
            return time.perf_counter() - begin

        pages = engine.kv.pages  # type: ignore[attr-defined]
        paged, grown, hits, costs = [], [], [], []
        for turn in range(rounds + 1):
            one, other, more = decode(small), decode(contiguous), decode(large)
            known = numbers.integers(0, parts.spec.vocab, length + 16).tolist()
            miss = first_token(known)
            hit = first_token(known)
            pages.reuse = False
            plain = first_token(numbers.integers(0, parts.spec.vocab, length + 16).tolist())
            pages.reuse = True
            if turn:  # the first warms up
                paged.append(one / other)
                grown.append(more / one)
                hits.append(hit / miss)
                costs.append(miss / plain)
        return {
            "model": llm.name, "tokens": length, "paged_over_contiguous": statistics.median(paged),
            "pool_x10_over_x1": statistics.median(grown), "hit_over_miss_ttft": statistics.median(hits),
            "all_miss_over_no_reuse": statistics.median(costs),
        }  # fmt: skip
