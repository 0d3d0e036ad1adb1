"""Many requests: token identity under everything, prefixes, swap, the fault barrier, deadlines."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Event, OutOfRoom, Request, SamplingParams
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import Decision, Runner, StepCost, Work
from edgewise.engine.loop import Engine
from edgewise.engine.meter import StepMeter
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners.text import TextRunner
from edgewise.engine.service import EngineService
from edgewise.kernels.api import Device, Floats
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.kv.paged import PagedCache
from edgewise.kv.swap import Disk, SwapFile
from edgewise.sim.clock import VirtualClock
from edgewise.testing.identity import NAMES, VOCAB, Tally, alone_slots, play_round, slots
from edgewise.testing.toy import ToyModel

GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def engine(model: ToyModel, pages: int = 64, policy: str = "fcfs", **options: Any) -> Engine:
    kv = model.cache(pages)
    runner: Any = options.pop("wrap", lambda inner: inner)(TextRunner(model, kv, model.device))
    verifier = VERIFIERS.build("none", sampler=SAMPLERS.build("standard"))
    settings = {"vocab": model.spec.vocab, "context": 256, **options}
    return Engine(runner, kv, POLICIES.build(policy), SPECULATORS.build("none"), verifier, **settings)


def drain(loop: Engine) -> dict[str, tuple[list[int], Event]]:
    tokens: dict[str, list[int]] = {}
    last: dict[str, Event] = {}
    while loop.has_work():
        for event in loop.step():
            tokens.setdefault(event.request_id, []).extend(event.tokens)
            last[event.request_id] = event
    assert loop.kv.free_tokens() == loop.capacity, "pages leaked"
    return {name: (tokens[name], last[name]) for name in last}


@pytest.fixture(scope="module")
def model(device: Device) -> ToyModel:
    return ToyModel(device)


# ── token identity (rows R13, R15, R19) ─────────────────────────────────────────────────


@pytest.mark.parametrize("policy", NAMES)
def test_tokens_are_those_of_a_request_alone(policy: str) -> None:
    tally = Tally()
    for seed in range(2):
        play_round(seed, 25, slots, alone_slots, tally, policy=policy)
    assert tally.requests >= 30


def test_all_that_can_happen_does_happen() -> None:
    """Otherwise the rounds above would prove nothing."""
    tally = Tally()
    for seed in range(6):
        play_round(seed, 25, slots, alone_slots, tally)
    assert min(tally.preempted, tally.swapped, tally.reused, tally.failed_steps) > 0
    assert set(tally.ends) == {"length", "cancelled", "error"}


def test_the_check_sees_a_wrong_token() -> None:
    """The negative control: a cache that hands a sequence another's page."""

    def mixed(pages: int, clock: VirtualClock) -> tuple[PagedCache, Runner]:
        kv, runner = slots(pages, clock)
        give = kv.pages._take
        kv.pages._take = lambda: (kv.pages._free.append(kv.pages._free[-1]), give())[1]  # type: ignore[method-assign]
        return kv, runner

    def rounds() -> None:
        for seed in range(10):
            play_round(seed, 25, mixed, alone_slots, Tally())

    with pytest.raises(AssertionError):
        rounds()


@pytest.mark.parametrize("policy", ["fcfs", "sj-mlfq"])
def test_a_real_model_under_pressure(model: ToyModel, policy: str) -> None:
    def alone(prompt: Sequence[int], count: int) -> list[int]:
        loop = engine(model)
        loop.add(Request(tuple(prompt), SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True), "one"))
        return drain(loop)["one"][0]

    def build(pages: int, clock: VirtualClock) -> tuple[PagedCache, Runner]:
        kv = model.cache(pages)
        return kv, TextRunner(model, kv, model.device)

    play_round(3, 10, build, alone, Tally(), policy=policy)


# ── prefixes ────────────────────────────────────────────────────────────────────────────


def test_a_known_prefix_is_not_computed_again(model: ToyModel) -> None:
    prompt = tuple(np.random.default_rng(0).integers(0, 61, 70).tolist())
    first, second = engine(model), engine(model)
    first.add(Request(prompt, GREEDY, "a"))
    want = drain(first)["a"][0]
    second.add(Request(prompt, GREEDY, "a"))
    drain(second)
    assert second.reused_tokens == 0
    second.add(Request(prompt, GREEDY, "b"))
    second.add(Request((*prompt[:40], 1, 2, 3), GREEDY, "c"))
    got = drain(second)
    assert got["b"][0] == want
    assert second.reused_tokens == 64 + 32
    fresh = engine(model)
    fresh.add(Request((*prompt[:40], 1, 2, 3), GREEDY, "c"))
    assert drain(fresh)["c"][0] == got["c"][0]


def test_cancelling_keeps_a_finished_prefill_of_use(model: ToyModel) -> None:
    prompt = tuple(range(60))
    loop = engine(model, rows=16)
    loop.add(Request(prompt, GREEDY, "a"))
    for _ in range(2):
        loop.step()
    loop.cancel("a")
    assert loop.kv.free_tokens() == loop.capacity
    drain(loop)
    loop.add(Request(prompt, GREEDY, "b"))
    drain(loop)
    assert loop.reused_tokens == 32  # the two chunks that were computed


def test_reuse_can_be_switched_off(model: ToyModel) -> None:
    kv = PagedCache(model.device, 2, 1, 16, 64, 16, "f32", reuse=False)
    loop = engine(model)
    loop.kv = kv
    loop.runner = TextRunner(model, kv, model.device)
    for name in "ab":
        loop.add(Request(tuple(range(40)), GREEDY, name))
        drain(loop)
    assert loop.reused_tokens == 0


# ── preemption ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("broken", [False, True])
def test_swap_gives_the_same_tokens_whatever_the_disk_does(model: ToyModel, broken: bool) -> None:
    class Lying(Disk):
        def read(self, fd: int, nbytes: int, offset: int) -> bytes:
            return bytes(nbytes) if broken else super().read(fd, nbytes, offset)

    long = dataclasses.replace(GREEDY, max_tokens=60)
    requests = [Request(tuple(range(at, at + 40)), long, f"r{at}") for at in range(5)]
    roomy = engine(model, 100)
    swap = SwapFile(disk=Lying())
    swap._rate = 1e15
    tight = engine(model, 9, swap=swap, cost=StepCost(1.0, 1.0, 1.0))
    tight.kv.pages.reuse = False  # type: ignore[attr-defined]  # or the pages would be found where they were left
    for loop in (roomy, tight):
        for request in requests:
            loop.add(request)
    assert {k: v[0] for k, v in drain(tight).items()} == {k: v[0] for k, v in drain(roomy).items()}
    assert tight.swapped_out > 0
    assert (tight.swapped_in == 0) == broken
    assert bool(swap.faults) == broken
    swap.close()


def test_the_cheaper_way_is_taken(model: ToyModel) -> None:
    for rate, swapped in ((1e15, True), (1.0, False)):
        swap = SwapFile()
        swap._rate = rate
        loop = engine(model, 9, swap=swap, cost=StepCost(0.1, 0.1, 0.1))
        loop.meter.saw = lambda *_: None  # type: ignore[method-assign]  # or a quick test would change its mind
        for at in range(4):
            loop.add(Request(tuple(range(at, at + 40)), dataclasses.replace(GREEDY, max_tokens=60), f"r{at}"))
        drain(loop)
        assert loop.preempted > 0
        assert (loop.swapped_out > 0) == swapped
        swap.close()


# ── the fault barrier (rows R08, R23) ───────────────────────────────────────────────────


class Poison:
    """Fails every step that token 60 takes part in."""

    def __init__(self, inner: TextRunner) -> None:
        self.inner = inner

    def step(self, work: Sequence[Work]) -> Floats:
        if any(60 in piece.tokens for piece in work):
            raise MemoryError("poison")
        return self.inner.step(work)

    def peaks(self) -> Sequence[int]:
        return self.inner.peaks()


def poisons() -> list[Request]:
    """Requests that go wrong: in a step, in a rule, in what they allow, in what they ask for."""
    bad = {60: 1.0}
    return [
        Request((5, 60), GREEDY, "step"),
        Request((*range(40), 60), GREEDY, "late"),
        Request((5, 6), dataclasses.replace(GREEDY, logit_bias=dict.fromkeys(range(61), -np.inf)), "rule"),
        Request((5, 6), dataclasses.replace(GREEDY, allowed_token_ids=[60]), "loop"),
        Request((5, 6), dataclasses.replace(GREEDY, max_tokens=3, logit_bias=bad, frequency_penalty=2.0), "fine"),
    ]


def test_a_poisoned_request_hurts_nobody_else(model: ToyModel) -> None:
    numbers = np.random.default_rng(1)
    quiet = dataclasses.replace(GREEDY, allowed_token_ids=range(60))
    good = [Request(tuple(numbers.integers(0, 60, 20).tolist()), quiet, f"g{at}") for at in range(15)]
    clean = engine(model, 200, rows=64)
    for request in good:
        clean.add(request)
    want = {name: tokens for name, (tokens, _) in drain(clean).items()}
    loop = engine(model, 200, rows=64, wrap=Poison)
    for at, request in enumerate(good):
        loop.add(request)
        if at % 3 == 0:
            loop.add(poisons()[at // 3])
    got = drain(loop)
    assert {name: got[name][0] for name in want} == want
    for name in ("step", "late"):
        assert got[name][1].finish_reason == "error"
        assert got[name][0] == []
        assert "MemoryError: poison" in str(got[name][1].error)
    assert got["rule"][1].finish_reason == "error"
    assert got["loop"][1].finish_reason == "error"


def test_a_broken_rule_ends_its_own_sample(model: ToyModel) -> None:
    class Broken:
        def apply(self, seq: object, logits: Floats) -> Floats:
            raise ZeroDivisionError("a user's rule")

    loop = engine(model)
    loop.add(Request((1, 2, 3), GREEDY, "bad"))
    loop.add(Request((1, 2, 4), GREEDY, "good"))
    next(iter(loop._samples.values())).rules = [Broken()]
    got = drain(loop)
    assert "ZeroDivisionError" in str(got["bad"][1].error)
    assert got["good"][1].finish_reason == "length"


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_with_its_request(device: Device, poison: float) -> None:
    """One row of the embedding is broken: whoever uses it ends with an error and no token, and whoever gets its pages
    afterwards computes what a fresh engine does."""
    model = ToyModel(device)
    table = np.random.default_rng(0).standard_normal((61, 32)).astype(np.float32)
    table[60] = poison
    raw = table.tobytes()
    model.table = device.load((61, 32), "F32", lambda offset, nbytes: raw[offset : offset + nbytes])
    quiet = dataclasses.replace(GREEDY, allowed_token_ids=range(60))
    fresh = engine(model, 4)
    fresh.add(Request(tuple(range(30)), quiet, "x"))
    want = drain(fresh)["x"][0]
    loop = engine(model, 4)
    loop.add(Request((*range(20), 60, 1, 2), quiet, "bad"))
    with np.errstate(all="ignore"):
        tokens, event = drain(loop)["bad"]
    assert (tokens, event.finish_reason) == ([], "error")
    assert "not finite" in str(event.error)
    loop.add(Request(tuple(range(30)), quiet, "x"))
    assert drain(loop)["x"][0] == want


# ── deadlines, queues, what an engine learns ────────────────────────────────────────────


def test_deadlines_and_full_queues() -> None:
    clock = VirtualClock()
    kv, runner = slots(20, clock)
    loop = Engine(
        runner, kv, POLICIES.build("fcfs"), SPECULATORS.build("none"),
        VERIFIERS.build("none", sampler=SAMPLERS.build("standard")), vocab=VOCAB, context=180, clock=clock, waiting=2,
    )  # fmt: skip
    long = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    loop.add(Request((1, 2), long, "late", extra={"timeout_s": 0.5}))
    loop.add(Request((1, 2, 3), dataclasses.replace(long, n=3, max_tokens=5), "fine"))
    with pytest.raises(OutOfRoom, match="2 requests are waiting already"):
        loop.add(Request((1,), long, "more"))
    got = drain(loop)
    assert "timeout_s" in str(got["late"][1].error)
    assert 0 < len(got["late"][0]) < 40
    assert got["fine"][1].finish_reason == "length"
    for extra, words in (({"priority": "high"}, "integer"), ({"key": 5}, "text"), ({"timeout_s": -1}, "above 0")):
        with pytest.raises(BadInput, match=words):
            loop.add(Request((1,), long, "odd", extra=extra))


def test_an_engine_learns_what_its_steps_cost() -> None:
    cost, meter, numbers = StepCost(0.02, 0.003, 0.002, 1e-6), StepMeter(), np.random.default_rng(0)
    for _ in range(400):
        prefill, decode = int(numbers.choice([0, 64, 200])), int(numbers.integers(1, 9))
        context = decode * int(numbers.integers(10, 900)) + prefill
        meter.saw(prefill, decode, context, cost.seconds(prefill, decode, context) * float(numbers.normal(1, 0.02)))
    for got, want in zip(meter.cost, cost, strict=True):
        assert got == pytest.approx(want, rel=0.3)


def test_what_has_ended_is_told_to_the_policy(model: ToyModel) -> None:
    seen: list[Any] = []
    loop = engine(model)
    inner = loop.policy

    class Listening:
        def pick(self, jobs: Any, budget: Any, now: float) -> Decision:
            seen.append((budget.ended, dict(budget.shares)))
            return inner.pick(jobs, budget, now)

    loop.policy = Listening()
    loop.add(Request((1, 2, 3), dataclasses.replace(GREEDY, max_tokens=4), "a", extra={"key": "me"}))
    drain(loop)
    loop.add(Request((1,), GREEDY, "b"))
    loop.step()
    assert [(one.prompt_tokens, one.generated, one.whole) for one in seen[-1][0]] == [(3, 4, True)]
    assert seen[-1][1]["me"] == 6  # rows


# ── the asynchronous face ───────────────────────────────────────────────────────────────


def test_the_asynchronous_face_gives_the_same_and_cancels_when_left() -> None:
    model = ToyModel(ReferenceDevice())
    quick, slow = Request((1, 2, 3), GREEDY), Request((4, 5), dataclasses.replace(GREEDY, max_tokens=200))
    alone = engine(model)
    alone.add(dataclasses.replace(quick, id="x"))
    want = drain(alone)["x"][0]
    loop = engine(model)

    async def ask(service: EngineService, request: Request) -> list[int]:
        return [token async for event in service(request) for token in event.tokens]

    async def main() -> None:
        async with EngineService(loop) as service:
            assert await asyncio.gather(*(ask(service, quick) for _ in range(4))) == [want] * 4
            stream = service(slow)
            await anext(stream)
            await stream.aclose()
            for _ in range(200):
                if loop.kv.free_tokens() == loop.capacity:
                    break
                await asyncio.sleep(0.01)
            assert loop.kv.free_tokens() == loop.capacity
            with pytest.raises(BadInput, match="no tokens"):
                await ask(service, Request(()))
            stream = service(slow)
            await anext(stream)
        assert [event.finish_reason async for event in stream][-1] == "cancelled"
        assert not loop.has_work()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_standing_decision_is_not_asked_for_again_until_something_happens(model: ToyModel) -> None:
    asked: list[int] = []
    loop = engine(model)
    inner = loop.policy

    class Counting:
        def pick(self, jobs: Any, budget: Any, now: float) -> Decision:
            asked.append(len(jobs))
            return inner.pick(jobs, budget, now)

    loop.policy = Counting()
    loop.add(Request((1, 2, 3), dataclasses.replace(GREEDY, max_tokens=40), "a"))
    for _ in range(10):
        loop.step()
    assert asked == [1, 1]  # its prompt, its first token
    loop.add(Request((4, 5), dataclasses.replace(GREEDY, max_tokens=12), "b"))
    for _ in range(8):
        loop.step()
    assert asked == [1, 1, 2, 2]
    loop.cancel("a")
    got = [event for _ in range(6) for event in loop.step() if event.request_id == "b"]
    assert asked == [1, 1, 2, 2, 1]
    assert got[-1].finish_reason == "length"
