"""`edgewise bench batching`: how many requests a second iteration-level scheduling carries, beside whole batches.

Paper:  Yu et al., Orca, OSDI 2022: the rate at which latency per token stays within three times that of an idle machine
Exact.  The hash of all tokens must be equal for both.
Needs:  nothing for the virtual run; a model for the real one
Cost:   a minute of one core; the real run takes as long as its load lasts, sixteen times
Status: kept
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, Request, SamplingParams
from edgewise.engine.api import StepCost
from edgewise.serve.calibrate import step_cost
from edgewise.serve.drawing import lines
from edgewise.serve.options import Json, Threads, table

# arm → (policy, padded). static: as FasterTransformer computed; ragged: the same batches with our ragged kernels.
ARMS = {"iteration": ("fcfs", False), "static": ("static", True), "ragged": ("static", False)}
LOWEST, HIGHEST = 0.05, 1.6  # shares of full steps between which the rate is looked for


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

    static: batches go in whole, padded to their longest, and their answers come back whole. ragged: the same without
    padding. control: equal lengths, all there at once (throughput). short_steps: iterations that a 4-token request
    takes beside one of 256 tokens. With --model, all of it also in real time, fed by a process of its own: minutes.
    Few requests flatter whoever is slower: the load must outlast its queues.
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


def highest(latency: Callable[[float], float], allowed: float, probes: int) -> float:
    """The share of full load at which latency reaches what is allowed: bisection, then a straight line between the
    nearest two (all in logarithms)."""
    low, high = LOWEST, HIGHEST
    found: dict[float, float] = {}
    for _ in range(probes):
        middle = math.sqrt(low * high)
        found[middle] = latency(middle)
        low, high = (middle, high) if found[middle] <= allowed else (low, middle)
    if low not in found or high not in found or found[high] <= found[low]:
        return low if low in found else 0.0
    part = math.log(allowed / found[low]) / math.log(found[high] / found[low])
    return float(low * (high / low) ** part)


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """Iteration-level scheduling over the baseline, and over the baseline when padding is free."""
    rates = {arm: found[f"{arm}_rps"] for arm in ARMS}
    over = {arm: rates["iteration"] / rates[arm] if rates[arm] else math.inf for arm in ARMS}
    return {"ratio": over["static"], "ratio_padding_free": over["ragged"]}


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
        policy, padded = ARMS[arm]
        engine, clock = twin(POLICIES.build(policy), costs, sequences=max_bs, tokens=1 << 20, padded=padded)
        records = play(engine, clock, arrivals, seed, together=policy == "static")
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
        out[f"{arm}_rps"] = highest(partial(latency, arm), times * idle, 8) / work
    out |= ratios(out)
    closed = [Arrival(0.0, 64, 64)] * (8 * max_bs)
    out["control"] = run("iteration", closed)[0]["tok_s"] / run("static", closed)[0]["tok_s"]
    pair = [Arrival(0.0, 16, 256), Arrival(1.0, 16, 4)]
    out["short_steps"] = run("iteration", pair)[2][1].steps
    hashes = {run(arm, at_load(asked, 0.5, costs, max_bs))[1] for arm in ARMS}
    out["tokens_hash"] = hashes.pop() if len(hashes) == 1 else "DIFFERENT"
    return out


PROBES = 5  # rates that each arm is tried at, in real time
CLOSED = 8  # batches of the control


def real(asked: Sequence[Any], model: str, max_bs: int, times: float, threads: int | None, seed: int) -> dict[str, Any]:
    """The same question in real time. lag_p99_s: how late the process that asks was, in the worst of the runs; valid:
    never more than 5 ms."""
    from edgewise.embedded import embedded_model
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    path = embedded_model() if model == "embedded" else locate(model)
    # Seats for the padding of a batch as well, and eight for the measuring of costs.
    with LLM(path, ctx_size=0, max_num_seqs=2 * max_bs + 8, threads=threads) as llm:
        live = Live(llm.parts.engine, asked, llm.context, max_bs, seed)
        found: dict[str, Any] = {"model": llm.name, "requests": len(live.asked)}
        found |= {"left_out": len(asked) - len(live.asked), "control": live.control()}
        found["idle_latency_per_token_s"] = idle = live.idle()
        for arm in ARMS:
            found[f"{arm}_rps"] = highest(partial(live.latency, arm), times * idle, PROBES) / live.work
        return found | ratios(found) | live.books()


class Live:
    """All arms on one engine that is otherwise idle. Requests that do not fit into `context` are left out."""

    def __init__(self, engine: Any, asked: Sequence[Any], context: int, max_bs: int, seed: int) -> None:
        from edgewise.serve.calibrate import measure_cost
        from edgewise.sim.load import seat_seconds

        self.engine, self.seed, self.max_bs = engine, seed, max_bs
        self.asked = [one for one in asked if one.prompt_tokens + one.output_tokens <= context]
        if not self.asked:
            longest = max(one.prompt_tokens + one.output_tokens for one in asked)
            raise BadInput(f"No request fits into {context} tokens; the longest takes {longest}. Raise --scale.")
        engine.kv.pages.reuse = False  # every run asks the same texts again
        self.costs = measure_cost(engine)
        self.work = sum(seat_seconds(one, self.costs, max_bs) for one in self.asked) / len(self.asked)
        self.lags: list[float] = []
        self.hashes: set[str] = set()
        engine.sequences = max_bs

    def run(self, arm: str, arrivals: Sequence[Any]) -> tuple[dict[str, float], str]:
        """One load from its first arrival to its last answer: what `summary` says of it, and the hash of its tokens."""
        from edgewise.engine.policies import POLICIES
        from edgewise.sim.clients import play_live
        from edgewise.sim.padding import PaddedBatches
        from edgewise.sim.play import summary, tokens_hash

        policy, padded = ARMS[arm]
        engine, inner = self.engine, self.engine.runner
        engine.policy = POLICIES.build(policy)
        try:
            if padded:
                engine.runner = PaddedBatches(inner, engine.kv, engine.rows)
            records, lag = play_live(engine, arrivals, self.seed, together=policy == "static")
        finally:
            if padded:
                engine.runner.clear()
            engine.runner = inner
        self.lags.append(lag)
        return summary(records), tokens_hash(records)

    def control(self) -> float:
        """Equal lengths, all there at once: throughput over that of the baseline."""
        from edgewise.sim.load import Arrival

        closed = [Arrival(0.0, 64, 64)] * (CLOSED * self.max_bs)
        first, second, third, last = (
            self.run(arm, closed)[0]["tok_s"] for arm in ("iteration", "static", "static", "iteration")
        )
        return (first + last) / (second + third)

    def idle(self) -> float:
        """Mean latency per token of the same requests, each of them alone."""
        from edgewise.engine.policies import POLICIES
        from edgewise.sim.play import prompt_of

        self.engine.policy = POLICIES.build("fcfs")
        taken: list[float] = []
        for at, one in enumerate(self.asked):
            prompt = prompt_of(at, one, self.engine.vocab, self.seed)
            params = SamplingParams(temperature=0.0, max_tokens=one.output_tokens, ignore_eos=True)
            begin = time.perf_counter()
            self.engine.add(Request(prompt, params, str(at)))
            while self.engine.has_work():
                self.engine.step()
            taken.append((time.perf_counter() - begin) / one.output_tokens)
        return sum(taken) / len(taken)

    def latency(self, arm: str, share: float) -> float:
        """Mean latency per token at a share of what full steps could do."""
        from edgewise.sim.load import at_load

        found, tokens = self.run(arm, at_load(self.asked, share, self.costs, self.max_bs))
        self.hashes.add(tokens)
        return found["latency_per_token_s"]

    def books(self) -> dict[str, Any]:
        """Whether all runs gave the same tokens, and whether the client kept time."""
        tokens = next(iter(self.hashes)) if len(self.hashes) == 1 else "DIFFERENT"
        return {"tokens_hash": tokens, "lag_p99_s": max(self.lags), "valid": max(self.lags) <= 0.005}
