"""`edgewise bench sched`: how long requests take under each scheduling policy, on the same load, in virtual time.

Paper:  Wu et al., FastServe, arXiv:2305.05920, NSDI 2026; traces in the format of AzurePublicDataset
Exact.  The hash of all tokens must be equal for all policies.
Needs:  nothing; --cost MODEL measures what steps cost on a model instead of using the committed figures
Cost:   seconds of one core
Status: kept
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.serve.calibrate import step_cost
from edgewise.serve.options import Json, table


def measure_scheduling(
    policies: Annotated[str, typer.Option(help="names with settings; between two policies a comma")] = "fcfs,sj-mlfq",
    trace: Annotated[str, typer.Option(help="CSV in Azure's format, or bimodal, poisson, gamma, ...")] = "bimodal",
    scale: Annotated[float, typer.Option(min=0.01, help="lengths are divided by this (not bimodal's)")] = 4.0,
    load: Annotated[str, typer.Option(help="share of what full steps could do; several with commas")] = "0.85",
    requests: Annotated[int, typer.Option("-n", min=2, help="of the trace, from its start")] = 2000,
    max_bs: Annotated[int, typer.Option(min=1, help="sequences a step computes")] = 4,
    kv_tokens: Annotated[int, typer.Option(min=256, help="room in the KV cache")] = 1 << 19,
    swap_mb_s: Annotated[float, typer.Option(min=0, help="rate of the swap disk; 0: recompute only")] = 0.0,
    rows: Annotated[int, typer.Option(min=1, help="tokens of a step")] = 512,
    arrivals: Annotated[str, typer.Option(help="trace: its own gaps; poisson; or gamma:SHAPE")] = "trace",
    cost: Annotated[str | None, typer.Option(help="four numbers of seconds, or a model to measure")] = None,
    seed: Annotated[int, typer.Option(help="of lengths, gaps and texts")] = 0,
    ttft: Annotated[float, typer.Option(min=0, help="seconds to the first token that goodput allows")] = 2.0,
    tpot: Annotated[float, typer.Option(min=0, help="seconds per later token that goodput allows")] = 0.1,
    svg: Annotated[Path | None, typer.Option(help="draw the distribution of completion times")] = None,
    as_json: Json = False,
) -> None:
    """Completion times of the same load under each policy. The engine's own loop and policies, in virtual time.

    jct: from arrival to the last token. ttft: to the first. stall_s: time that steps waited for the swap disk. goodput:
    requests a second that kept to --ttft and --tpot.
    """
    from edgewise.engine.policies import POLICIES
    from edgewise.serve.drawing import curves
    from edgewise.sim.load import at_load, gaps
    from edgewise.sim.load import load as read_load
    from edgewise.sim.play import play, summary, tokens_hash, twin

    costs, token_bytes = step_cost(cost, max_bs)
    asked = gaps(read_load(trace, requests, scale, seed), arrivals, seed)
    names = split_policies(policies)
    found: list[dict[str, Any]] = []
    drawn: dict[str, list[float]] = {}
    for share in (float(part) for part in load.split(",")):
        paced = at_load(asked, share, costs, max_bs)
        for name in names:
            engine, clock = twin(
                POLICIES.build(name), costs, sequences=max_bs, tokens=kv_tokens, rows=rows, token_bytes=token_bytes,
                swap_rate=swap_mb_s * 1e6,
            )  # fmt: skip
            records = play(engine, clock, paced, seed)
            numbers = summary(records, ttft, tpot)
            found.append({
                "policy": name, "trace": Path(trace).stem, "load": share, "jct_mean_s": numbers["jct_mean_s"],
                "jct_p50_s": numbers["jct_p50_s"], "jct_p99_s": numbers["jct_p99_s"],
                "ttft_p99_s": numbers["ttft_p99_s"], "tok_s": numbers["tok_s"], "tokens_hash": tokens_hash(records),
                "ttft_mean_s": numbers["ttft_mean_s"], "tpot_mean_s": numbers["tpot_mean_s"],
                "goodput_rps": numbers["goodput_rps"], "preempted": engine.preempted, "swapped": engine.swapped_out,
                "stall_s": 0.0 if engine.swap is None else engine.swap.stalled_s,
            })  # fmt: skip
            drawn[f"{name} {share:g}"] = sorted(record.jct_s for record in records)
    if svg is not None:
        curves(svg, drawn, f"{Path(trace).stem}: share of requests done within", "seconds")
    if as_json:
        print(json.dumps(found, indent=1))
        return
    head = [
        "policy", "load", "jct mean", "p50", "p99", "ttft p99", "tok/s", "good/s", "preempt", "swap", "stall s",
        "tokens",
    ]  # fmt: skip
    body = [
        [
            r["policy"], f"{r['load']:g}", f"{r['jct_mean_s']:.2f}", f"{r['jct_p50_s']:.2f}", f"{r['jct_p99_s']:.2f}",
            f"{r['ttft_p99_s']:.2f}", f"{r['tok_s']:.1f}", f"{r['goodput_rps']:.3f}", str(r["preempted"]),
            str(r["swapped"]), f"{r['stall_s']:.2f}", r["tokens_hash"],
        ]
        for r in found
    ]  # fmt: skip
    print(f"{Path(trace).stem}, {len(asked)} requests, lengths / {scale:g}, {max_bs} sequences a step; virtual time")
    print(table([head, *body], set(range(1, 11))))


def split_policies(text: str) -> list[str]:
    """`a,b:x=1,y=2,c` → a · b:x=1,y=2 · c: what holds a `=` and no `:` goes on with the policy before it."""
    names: list[str] = []
    for part in text.split(","):
        if names and "=" in part and ":" not in part:
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    if not names:
        raise BadInput("--policies names no policy.")
    return names
