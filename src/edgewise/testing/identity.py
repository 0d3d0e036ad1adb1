"""Token identity: whatever happens around a request, its greedy tokens are those it gets alone.

`python -m edgewise.testing.identity --requests 10000` plays random requests through engines of random policies, batch
sizes, chunk sizes and cache sizes, with shared prefixes, samples that fork, cancellations, deadlines, failing steps,
and preemption by recomputing and by swap. With --model PATH (or `embedded`) on that model, else on slots that hold
chained hashes. --speculators tries what drafts instead (`testing.drafted`). Rows R13, R15 and R19 of the reliability
plan: nobody is lost, nothing leaks, every end is told once.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewise.base import EdgewiseError, Request, SamplingParams, SeqId
from edgewise.decode.api import Insider
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import Runner, StepCost, Work
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.kernels.api import Array, Floats
from edgewise.kv.paged import PagedCache
from edgewise.kv.swap import SwapFile
from edgewise.sim.clock import VirtualClock
from edgewise.sim.memory import START, follow, slot_cache
from edgewise.sim.runner import CostRunner
from edgewise.testing.drafted import CIRCUMSTANCES, report

NAMES = (
    "fcfs", "static", "srpt", "mlfq", "sj-mlfq", "sj-mlfq:swap=released", "sj-mlfq:ahead=False", "auto", "priority",
    "fair",
)  # fmt: skip
VOCAB = 61


class Flaky:
    """A runner whose steps fail now and then, before or after the work, and always when somebody is poisoned."""

    def __init__(self, inner: Runner, numbers: np.random.Generator, often: float, poison: int | None = None) -> None:
        self.inner, self.numbers, self.often, self.poison = inner, numbers, often, poison
        self.failed = 0

    def step(self, work: Sequence[Work]) -> Floats:
        if self.poison is not None and any(self.poison in piece.tokens for piece in work):
            raise ValueError("this token is poison")
        if len(work) > 1 and self.numbers.random() < self.often:
            self.failed += 1
            if self.numbers.random() < 0.5:
                self.inner.step(work)
            raise RuntimeError("a step failed")
        return self.inner.step(work)

    def peaks(self) -> Sequence[int]:
        return self.inner.peaks()

    def left(self) -> Mapping[SeqId, Sequence[int]]:
        return self.inner.left()

    def open_to(self, insider: Insider | None) -> None:
        self.inner.open_to(insider)

    def shown(self) -> Array | None:
        return self.inner.shown()


@dataclass
class Tally:
    """What happened, and that it did."""

    requests: int = 0
    tokens: int = 0
    preempted: int = 0
    swapped: int = 0
    reused: int = 0
    failed_steps: int = 0
    late: int = 0  # requests with a deadline
    overdue: int = 0  # of them, still there after it by more than one step
    ends: Counter[str] = field(default_factory=Counter)

    def add(self, engine: Engine, failed: int) -> None:
        self.preempted += engine.preempted
        self.swapped += engine.swapped_in
        self.reused += engine.reused_tokens
        self.failed_steps += failed


Build = Callable[[int, VirtualClock], tuple[PagedCache, Runner]]  # pages → a cache, and what computes with it


def slots(pages: int, clock: VirtualClock) -> tuple[PagedCache, Runner]:
    kv = slot_cache(pages, token_bytes=64)
    return kv, CostRunner(kv, StepCost(0.02, 0.003, 0.002, 1e-6), clock, VOCAB)


def alone_slots(prompt: Sequence[int], count: int) -> list[int]:
    """What slots answer: follows from the definition, no engine needed."""
    value = START
    for token in prompt:
        value = follow(value, token)
    out: list[int] = []
    while len(out) < count:
        out.append(value % VOCAB)
        value = follow(value, out[-1])
    return out


def play_round(
    seed: int,
    count: int,
    build: Build,
    alone: Callable[[Sequence[int], int], list[int]],
    tally: Tally,
    vocab: int = VOCAB,
    policy: str | None = None,
    swap: Any = None,
) -> None:
    """One engine, `count` requests. Raises AssertionError when a token differs, an end is missing or a page is lost."""
    numbers = np.random.default_rng(seed)
    clock = VirtualClock()
    kv, runner = build(int(numbers.choice([12, 14, 18, 40, 200])), clock)
    kv.pages.reuse = bool(numbers.random() < 0.6)  # else pages are mostly found where they were left, and never swapped
    flaky = Flaky(runner, numbers, float(numbers.choice([0.0, 0.0, 0.05])))
    if swap is None and numbers.random() < 0.6:
        swap = SwapFile()
        swap._rate = 1e12  # always cheaper than computing again
    engine = Engine(
        flaky, kv, POLICIES.build(policy or str(numbers.choice(NAMES))), SPECULATORS.build("none"),
        VERIFIERS.build("none", sampler=SAMPLERS.build("standard")), vocab=vocab, context=180,
        rows=int(numbers.choice([1, 5, 16, 64, 512])), sequences=int(numbers.integers(1, 9)), clock=clock, swap=swap,
        cost=StepCost(0.02, 0.003, 0.002, 1e-6),
    )  # fmt: skip
    prefixes = [numbers.integers(0, vocab, 64).tolist() for _ in range(3)]
    asked: dict[str, tuple[Request, bool]] = {}
    tokens: dict[tuple[str, int], list[int]] = {}
    ends: dict[tuple[str, int], Any] = {}
    due: dict[str, float] = {}  # of those with a deadline
    left, idle, before_last = count, 0, 0.0
    while left or engine.has_work():
        while left and (numbers.random() < 0.3 or not engine.has_work()):
            left -= 1
            name = f"r{left}"
            cut = int(numbers.integers(0, 65)) if numbers.random() < 0.5 else 0
            own = numbers.integers(0, vocab, int(numbers.integers(1, 60))).tolist()
            prompt = tuple(prefixes[int(numbers.integers(3))][:cut] + own)
            params = SamplingParams(
                n=int(numbers.choice([1, 1, 1, 2])), temperature=0.0, max_tokens=int(numbers.integers(1, 50)),
                ignore_eos=True,
            )  # fmt: skip
            extra: dict[str, Any] = {"priority": int(numbers.integers(3)), "key": str(numbers.integers(3))}
            late = numbers.random() < 0.05
            if late:
                extra["timeout_s"] = float(numbers.uniform(0.1, 4))
            request = Request(prompt, params, name, extra=extra)
            if len(prompt) + 16 <= engine.capacity:
                engine.add(request)
                asked[name] = request, late
                if late:
                    due[name] = clock.now() + extra["timeout_s"]
        if asked and numbers.random() < 0.02:
            engine.cancel(str(numbers.choice(list(asked))))
        before, began = engine.steps, clock.now()
        for event in engine.step():
            key = event.request_id, event.index
            assert key not in ends, f"{key} was told of after its end"
            tokens.setdefault(key, []).extend(event.tokens)
            if event.finish_reason:
                ends[key] = event
                tally.overdue += event.index == 0 and before_last > due.get(event.request_id, before_last)
        before_last = began
        idle = 0 if engine.steps > before else idle + 1
        assert idle < 100, "the engine does nothing"
    assert kv.free_tokens() == engine.capacity, "pages leaked"
    assert set(ends) == {(name, i) for name, (request, _) in asked.items() for i in range(request.params.n)}
    for (name, _), event in ends.items():
        request, late = asked[name]
        got = tokens[name, event.index]
        want = alone(request.tokens, request.params.max_tokens or 0)[: 180 - len(request.tokens)]
        reason = event.finish_reason
        tally.ends[reason] += 1
        if reason == "error":
            room = "KV cache is full" in str(event.error)
            assert room or (late and "timeout_s" in str(event.error)), event.error
            assert not room or len(request.tokens) + len(got) + 16 > engine.capacity, event.error
        assert got == want[: len(got)], f"seed {seed}, {name}: {got} instead of {want}"
        assert len(got) == len(want) or reason != "length", f"seed {seed}, {name} ended early"
        tally.tokens += len(got)
    tally.requests += len(asked)
    tally.late += len(due)
    tally.add(engine, flaky.failed)
    if swap is not None:
        swap.close()


def on_model(path: str, kv_cache_dtype: str = "auto") -> tuple[Build, Callable[[Sequence[int], int], list[int]], int]:
    """(build, alone, vocab) of a real model."""
    from edgewise.engine.runners.text import TextRunner
    from edgewise.serve.llm import LLM

    llm = LLM(None if path == "embedded" else path, ctx_size=256, max_num_seqs=1, kv_cache_dtype=kv_cache_dtype)
    parts = llm.parts

    def build(pages: int, clock: VirtualClock) -> tuple[PagedCache, Runner]:
        spec = parts.spec
        kv = PagedCache(parts.device, spec.layers, spec.kv_heads, spec.head_dim, pages, 16, parts.kv_dtype)
        return kv, TextRunner(parts.model, kv, parts.device)

    def alone(prompt: Sequence[int], count: int) -> list[int]:
        params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        return list(llm.generate([list(prompt)], params)[0].outputs[0].token_ids)

    return build, alone, parts.spec.vocab


def soak(
    requests: int,
    model: str | None = None,
    seed: int = 0,
    kv_cache_dtype: str = "auto",
    done: Callable[[int], None] = lambda count: None,
) -> Tally:
    """So many random requests, 25 a round, each round under another policy and with other troubles; raises
    AssertionError at the first token that differs. model: a path, `embedded`, or None for the numbers that stand for
    keys and values. done: told how many are over."""
    build, alone, vocab = (slots, alone_slots, VOCAB) if model is None else on_model(model, kv_cache_dtype)
    tally = Tally()
    while tally.requests < requests:
        play_round(seed, min(25, requests - tally.requests), build, alone, tally, vocab)
        seed += 1
        done(tally.requests)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--model", help="a model's path, or `embedded`")
    parser.add_argument("--kv-cache-dtype", default="auto", help="of the model")
    parser.add_argument("--seed", type=int, default=0)
    drafts = parser.add_argument_group("drafts")
    drafts.add_argument("--speculators", help="names with commas, or `all`: compare their text with plain decoding's")
    drafts.add_argument("--circumstances", default="all", help=f"of {', '.join(CIRCUMSTANCES)}")
    drafts.add_argument("--tokens", type=int, default=10_000, help="of each member in each circumstance")
    drafts.add_argument("--threads", type=int)
    drafts.add_argument("--control", action="store_true", help="adds a verifier that believes drafts: it must differ")
    drafts.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.speculators:
        model = None if options.model in (None, "embedded") else options.model
        try:
            sys.exit(report(
                options.speculators, options.circumstances, options.tokens, model, options.threads, options.control,
                options.json,
            ))  # fmt: skip
        except EdgewiseError as error:
            sys.exit(f"identity: {error}")
    begin = time.monotonic()

    def tell(count: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{count} requests, {time.monotonic() - begin:.0f} s", end="", file=sys.stderr)

    tally = soak(options.requests, options.model, options.seed, options.kv_cache_dtype, tell)
    print(f"{tally}: 0 tokens differ")


if __name__ == "__main__":
    main()
