"""Plays a load into an engine, open loop: a request arrives when its time has come, whatever became of the others."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewise.base import Clock, Event, Request, SamplingParams
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import SchedulerPolicy, StepCost
from edgewise.engine.loop import Engine
from edgewise.sim.clock import VirtualClock
from edgewise.sim.load import Arrival
from edgewise.sim.memory import slot_cache
from edgewise.sim.runner import CostRunner, PaddedRunner
from edgewise.sim.swap import RatedSwap


@dataclass
class Record:
    """What became of one request."""

    arrival: Arrival
    first_s: float = math.nan  # when its first token came
    last_s: float = math.nan  # when it ended
    steps: int = 0  # of the engine, from its arrival to its end
    reason: str = ""
    tokens: list[int] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrival.at_s

    @property
    def jct_s(self) -> float:
        return self.last_s - self.arrival.at_s

    @property
    def tpot_s(self) -> float:
        return (self.last_s - self.first_s) / max(1, len(self.tokens) - 1)


def prompt_of(index: int, arrival: Arrival, vocab: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(np.random.default_rng((seed, index)).integers(0, vocab, arrival.prompt_tokens).tolist())


class Watch:
    """Turns an engine's events into records. together: answers of a batch come back when all of it is done."""

    def __init__(self, engine: Engine, arrivals: Sequence[Arrival], together: bool = False) -> None:
        self.engine, self.together = engine, together
        self.records = [Record(arrival) for arrival in arrivals]
        self._entered = [0] * len(arrivals)
        self._held: list[Record] = []

    def enter(self, at: int) -> None:
        self._entered[at] = self.engine.steps

    def saw(self, events: Sequence[Event], now: float) -> None:
        for event in events:
            record = self.records[int(event.request_id)]
            if event.tokens and not record.tokens:
                record.first_s = now
            record.tokens += event.tokens
            if event.finish_reason:
                record.last_s, record.reason = now, event.finish_reason
                record.steps = self.engine.steps - self._entered[int(event.request_id)]
                self._held.append(record)
        if self.together and self._held and not self.engine.holders():
            for record in self._held:
                record.first_s = record.last_s = now
        if not self.together or not self.engine.holders():
            self._held.clear()


def play(
    engine: Engine,
    clock: Clock,
    arrivals: Sequence[Arrival],
    seed: int = 0,
    watch: Callable[[], None] = lambda: None,
    together: bool = False,
) -> list[Record]:
    """One record an arrival, in their order. watch: called after every step."""
    seen = Watch(engine, arrivals, together)
    begin, due = clock.now(), 0
    while due < len(arrivals) or engine.has_work():
        now = clock.now() - begin
        if not engine.has_work() and arrivals[due].at_s > now:
            clock.sleep(arrivals[due].at_s - now)
            now = clock.now() - begin
        while due < len(arrivals) and arrivals[due].at_s <= now + 1e-9:
            arrival = arrivals[due]
            params = SamplingParams(temperature=0.0, max_tokens=arrival.output_tokens, ignore_eos=True)
            seen.enter(due)
            prompt = prompt_of(due, arrival, engine.vocab, seed)
            engine.add(Request(prompt, params, str(due), begin + arrival.at_s or 1e-12))
            due += 1
        events = engine.step()
        seen.saw(events, clock.now() - begin)
        watch()
    return seen.records


def twin(
    policy: SchedulerPolicy,
    cost: StepCost,
    *,
    sequences: int,
    tokens: int,
    rows: int = 512,
    context: int = 8192,
    page_tokens: int = 16,
    token_bytes: int = 0,
    swap_rate: float = 0.0,
    staging_bytes: int = 64 << 20,
    vocab: int = 256,
    padded: bool = False,
) -> tuple[Engine, VirtualClock]:
    """An engine like any other, with a virtual clock, a cost model and a cache of `tokens` tokens. swap_rate: bytes a
    second of its disk; 0: no swap. padded: what whole batches of equal length would cost."""
    clock = VirtualClock()
    kv = slot_cache(max(1, tokens // page_tokens), page_tokens, token_bytes)
    swap = RatedSwap(clock, swap_rate, token_bytes, staging_bytes) if swap_rate else None
    engine = Engine(
        (PaddedRunner if padded else CostRunner)(kv, cost, clock, vocab), kv, policy, SPECULATORS.build("none"),
        VERIFIERS.build("none", sampler=SAMPLERS.build("standard")), vocab=vocab, context=context, rows=rows,
        sequences=sequences, page_tokens=page_tokens, clock=clock, swap=swap, cost=cost,
    )  # fmt: skip
    return engine, clock


def tokens_hash(records: Sequence[Record]) -> str:
    """Sixteen hexadecimal digits of all tokens of all requests, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(np.array([len(record.tokens), *record.tokens], np.int64).tobytes())
    return digest.hexdigest()[:16]


def summary(records: Sequence[Record], ttft_s: float = math.inf, tpot_s: float = math.inf) -> dict[str, float]:
    """Means and percentiles over the finished. goodput: requests a second that kept to both limits."""
    done = [record for record in records if record.tokens and record.reason in ("length", "stop")]
    out: dict[str, float] = {}
    for name in ("ttft", "tpot", "jct"):
        values = np.array([getattr(record, f"{name}_s") for record in done] or [math.nan])
        out[f"{name}_mean_s"] = float(values.mean())
        for percent in (50, 99):
            out[f"{name}_p{percent}_s"] = float(np.percentile(values, percent))
    out["latency_per_token_s"] = float(np.mean([record.jct_s / len(record.tokens) for record in done] or [math.nan]))
    span = max((record.last_s for record in done), default=math.nan)
    out["tok_s"] = sum(len(record.tokens) for record in done) / span
    good = sum(record.ttft_s <= ttft_s and record.tpot_s <= tpot_s for record in done)
    out["goodput_rps"] = good / span
    return out
