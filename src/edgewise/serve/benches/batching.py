"""`edgewise bench batching`: how many requests a second iteration-level scheduling carries, beside whole batches.

Paper:  Yu et al., Orca, OSDI 2022: the rate at which latency per token stays within three times that of an idle machine
Exact.  The hash of all tokens must be equal for both.
Needs:  nothing for the virtual run; a model for the real one
Cost:   tens of seconds of one core; the real run takes as long as its load lasts, twice
Status: kept
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.engine.api import StepCost
from edgewise.serve.calibrate import step_cost
from edgewise.serve.drawing import lines
from edgewise.serve.options import Json, Threads, table

ARMS = {"iteration": "fcfs", "static": "static"}


def measure_batching(
    trace: Annotated[str, typer.Option(help="CSV in Azure's format, or reasoning, lognormal, ...")] = "reasoning",
    scale: Annotated[float, typer.Option(min=0.01, help="lengths are divided by this")] = 4.0,
    max_bs: Annotated[int, typer.Option(min=1, help="sequences a step computes")] = 8,
    requests: Annotated[int, typer.Option("-n", min=2, help="of the trace, from its start")] = 600,
    arrivals: Annotated[str, typer.Option(help="trace: its own gaps; poisson; or gamma:SHAPE")] = "trace",
    times: Annotated[float, typer.Option(min=1.1, help="latency allowed, over that of an idle machine")] = 3.0,
    cost: Annotated[str | None, typer.Option(help="four numbers of seconds, or a model to measure")] = None,
    model: Annotated[str | None, typer.Option(help="run in real time on this model (or `embedded`)")] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="of lengths, gaps and texts")] = 0,
    svg: Annotated[Path | None, typer.Option(help="draw latency per token over the rate")] = None,
    as_json: Json = False,
) -> None:
    """The highest rate with a mean latency per token within --times that of an idle machine, in virtual time.

    static: batches go in whole, padded to their longest, and their answers come back whole. control: the same with
    equal lengths, all there at once (throughput). short_steps: iterations that a 4-token request takes beside one of
    256 tokens. With --model, both also run in real time (no padding there), fed by a process of its own: a minute or
    two for the embedded model and -n 100.
    """
    from edgewise.sim.load import gaps
    from edgewise.sim.load import load as read_load

    costs, _ = step_cost(cost, max_bs)
    asked = gaps(read_load(trace, requests, scale, seed), arrivals, seed)
    row: dict[str, Any] = {"trace": Path(trace).stem, "max_bs": max_bs, "requests": len(asked)}
    seen: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    row |= virtual(asked, costs, max_bs, times, seed, seen)
    if svg is not None:
        allowed = times * row["idle_latency_per_token_s"]
        lines(svg, seen, row["trace"], "requests a second", "seconds of latency per token", allowed)
    if model is not None:
        row["real"] = real(asked, model, max_bs, times, threads, seed)
    if as_json:
        print(json.dumps([row], indent=1))
        return
    flat = row | {f"real {name}": value for name, value in row.pop("real", {}).items()}
    body = [[name, str(round(value, 4) if isinstance(value, float) else value)] for name, value in flat.items()]
    print(table([["what", "value"], *body], {1}))


def virtual(
    asked: Sequence[Any],
    costs: StepCost,
    max_bs: int,
    times: float,
    seed: int,
    seen: Mapping[str, list[tuple[float, float]]] | None = None,
) -> dict[str, Any]:
    """seen: gets what was found on the way, (requests a second, seconds of latency per token) by arm."""
    from edgewise.engine.policies import POLICIES
    from edgewise.sim.load import Arrival, at_load, seat_seconds
    from edgewise.sim.play import play, summary, tokens_hash, twin

    def run(arm: str, arrivals: Sequence[Any]) -> tuple[dict[str, float], str, list[Any]]:
        policy = POLICIES.build(ARMS[arm])
        engine, clock = twin(policy, costs, sequences=max_bs, tokens=1 << 20, padded=arm == "static")
        records = play(engine, clock, arrivals, seed, together=arm == "static")
        return summary(records), tokens_hash(records), records

    work = sum(seat_seconds(arrival, costs, max_bs) for arrival in asked) / len(asked)

    def latency(arm: str, share: float) -> float:
        found = run(arm, at_load(asked, share, costs, max_bs))[0]["latency_per_token_s"]
        if seen is not None:
            seen[arm].append((share / work, found))
        return found

    idle = latency("iteration", 0.01)
    out: dict[str, Any] = {"idle_latency_per_token_s": idle}
    for arm in ARMS:
        if seen is not None:
            latency(arm, 0.01)
        low, high = 0.0, 2.0
        for _ in range(9):
            middle = (low + high) / 2
            low, high = (middle, high) if latency(arm, middle) <= times * idle else (low, middle)
        out[f"{arm}_rps"] = low / work
    out["ratio"] = out["iteration_rps"] / out["static_rps"] if out["static_rps"] else math.inf
    closed = [Arrival(0.0, 64, 64)] * (8 * max_bs)
    out["control"] = run("iteration", closed)[0]["tok_s"] / run("static", closed)[0]["tok_s"]
    pair = [Arrival(0.0, 16, 256), Arrival(1.0, 16, 4)]
    out["short_steps"] = run("iteration", pair)[2][1].steps
    hashes = {run(arm, at_load(asked, 0.5, costs, max_bs))[1] for arm in ARMS}
    out["tokens_hash"] = hashes.pop() if len(hashes) == 1 else "DIFFERENT"
    return out


PROBES = 5  # rates that each arm is tried at, in real time
CLOSED = 8  # batches of the control


def real(
    asked: Sequence[Any], model: str, max_bs: int, times: float, threads: int | None, seed: int
) -> dict[str, Any]:
    """The same question in real time: each arm's highest rate by bisection, and the control. lag_p99_s: how late the
    process that asks was at worst; valid: never more than 5 ms."""
    from edgewise.embedded import embedded_model
    from edgewise.engine.policies import POLICIES
    from edgewise.serve.calibrate import measure_cost
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM
    from edgewise.sim.clients import play_live
    from edgewise.sim.load import Arrival, at_load, seat_seconds
    from edgewise.sim.play import summary, tokens_hash

    path = embedded_model() if model == "embedded" else locate(model)
    longest = max(arrival.prompt_tokens + arrival.output_tokens for arrival in asked)
    with LLM(path, ctx_size=0, max_num_seqs=max(9, max_bs), threads=threads) as llm:
        fit = [one for one in asked if one.prompt_tokens + one.output_tokens <= llm.context]
        if not fit:
            raise BadInput(f"No request fits into {llm.context} tokens; the longest takes {longest}. Raise --scale.")
        engine = llm.parts.engine
        engine.kv.pages.reuse = False  # type: ignore[attr-defined]  # every probe asks the same texts again
        costs = measure_cost(engine)
        engine.sequences = max_bs
        lags: list[float] = []
        hashes: set[str] = set()

        def run(arm: str, arrivals: Sequence[Any]) -> dict[str, float]:
            engine.policy = POLICIES.build(ARMS[arm])
            records, lag = play_live(engine, arrivals, seed, together=arm == "static")
            lags.append(lag)
            if arrivals is not closed:
                hashes.add(tokens_hash(records[: len(fit)]))
            return summary(records)

        closed = [Arrival(0.0, 64, 64)] * (CLOSED * max_bs)
        control = [run(arm, closed)["tok_s"] for arm in ("iteration", "static", "static", "iteration")]
        work = sum(seat_seconds(arrival, costs, max_bs) for arrival in fit) / len(fit)
        few = [Arrival(3.0 * max_bs * work * at, *_sizes(one)) for at, one in enumerate(fit[:16])]
        engine.policy = POLICIES.build("fcfs")
        idle = summary(play_live(engine, few, seed)[0])["latency_per_token_s"]
        found: dict[str, Any] = {
            "model": llm.name, "requests": len(fit), "left_out": len(asked) - len(fit),
            "idle_latency_per_token_s": idle,
        }  # fmt: skip
        for arm in ARMS:
            low, high = 0.0, 1.6
            for _ in range(PROBES):
                middle = (low + high) / 2
                seen = run(arm, at_load(fit, middle, costs, max_bs))
                if seen["latency_per_token_s"] <= times * idle:
                    low = middle
                    found |= {f"{arm}_tok_s": seen["tok_s"], f"{arm}_ttft_p99_s": seen["ttft_p99_s"]}
                else:
                    high = middle
            found[f"{arm}_rps"] = low / work
        found["ratio"] = found["iteration_rps"] / found["static_rps"] if found["static_rps"] else math.inf
        found["control"] = (control[0] + control[3]) / (control[1] + control[2])
    found["tokens_hash"] = hashes.pop() if len(hashes) == 1 else "DIFFERENT"
    return found | {"lag_p99_s": max(lags), "valid": max(lags) <= 0.005}


def _sizes(arrival: Any) -> tuple[int, int]:
    return arrival.prompt_tokens, arrival.output_tokens
