"""The loop: whatever happens around a request, its tokens are those it gets alone."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Event, OutOfRoom, Request, SamplingParams
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import Work
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners.text import TextRunner
from edgewise.kernels.api import Device, Floats
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.testing.toy import ToyModel

Wrap = Callable[[TextRunner], Any]


def engine(model: ToyModel, pages: int = 64, page_tokens: int = 16, wrap: Wrap = lambda r: r, **options: Any) -> Engine:
    kv = model.cache(pages, page_tokens)
    runner = wrap(TextRunner(model, kv, model.device))
    verifier = VERIFIERS.build("none", sampler=SAMPLERS.build("standard"))
    settings = {"vocab": model.spec.vocab, "context": 256, "page_tokens": page_tokens, **options}
    return Engine(runner, kv, POLICIES.build("fcfs"), SPECULATORS.build("none"), verifier, **settings)


def drain(loop: Engine, limit: int = 5000) -> dict[tuple[str, int], tuple[list[int], Event]]:
    """Runs to the end: (request, index) → its tokens and its last event."""
    tokens: dict[tuple[str, int], list[int]] = {}
    last: dict[tuple[str, int], Event] = {}
    while loop.has_work():
        limit -= 1
        assert limit, "the loop does not come to an end"
        for event in loop.step():
            key = event.request_id, event.index
            assert key not in last or last[key].finish_reason is None, "an event after the last one"
            tokens.setdefault(key, []).extend(event.tokens)
            last[key] = event
    assert loop.kv.free_tokens() == loop.capacity, "pages leaked"
    assert all(event.finish_reason for event in last.values())
    return {key: (tokens[key], last[key]) for key in last}


def prompts(count: int = 7, seed: int = 0) -> list[tuple[int, ...]]:
    numbers = np.random.default_rng(seed)
    return [tuple(numbers.integers(0, 61, int(numbers.integers(1, 70))).tolist()) for _ in range(count)]


def requests(count: int = 7) -> list[Request]:
    """Greedy and sampled, short and long, with and without rules."""
    kinds = [
        SamplingParams(temperature=0, max_tokens=30),
        SamplingParams(seed=5, max_tokens=40, logprobs=2),
        SamplingParams(seed=6, max_tokens=25, top_k=9, repetition_penalty=1.3, presence_penalty=0.4),
        SamplingParams(temperature=0, max_tokens=50, n=1, logit_bias={3: -4.0}),
    ]
    return [Request(p, kinds[i % len(kinds)], f"r{i}") for i, p in enumerate(prompts(count))]


@pytest.fixture(scope="module")
def model(device: Device) -> ToyModel:
    return ToyModel(device)


@pytest.fixture(scope="module")
def alone(model: ToyModel) -> dict[tuple[str, int], tuple[list[int], Event]]:
    """Each request in an engine of its own."""
    results = {}
    for request in requests():
        loop = engine(model)
        loop.add(request)
        results |= drain(loop)
    return results


SETTINGS: list[dict[str, Any]] = [
    {},
    {"rows": 1},
    {"rows": 7},
    {"rows": 16},
    {"sequences": 1},
    {"sequences": 3, "rows": 20},
    {"page_tokens": 32},
    {"page_tokens": 64, "pages": 30},
    {"pages": 14},
    {"pages": 8, "rows": 11},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_any_schedule_gives_what_each_gets_alone(
    model: ToyModel, alone: dict[tuple[str, int], tuple[list[int], Event]], settings: dict[str, Any]
) -> None:
    loop = engine(model, **settings)
    for request in requests():
        loop.add(request)
    assert drain(loop) == alone


@pytest.mark.parametrize("pages", [64, 9])
def test_joining_at_any_time_changes_nothing(
    model: ToyModel, alone: dict[tuple[str, int], tuple[list[int], Event]], pages: int
) -> None:
    loop, numbers = engine(model, pages), np.random.default_rng(4)
    got: dict[tuple[str, int], list[int]] = {}
    queue = requests()
    while queue or loop.has_work():
        if queue and numbers.random() < 0.3:
            loop.add(queue.pop(int(numbers.integers(len(queue)))))
        for event in loop.step():
            got.setdefault((event.request_id, event.index), []).extend(event.tokens)
    assert got == {key: tokens for key, (tokens, _) in alone.items()}


def test_preemption_happens_and_is_recomputed(device: Device) -> None:
    """The tight settings above do preempt; otherwise they would prove nothing."""
    model = ToyModel(device)
    loop = engine(model, pages=8)
    put_out = []
    original = loop._preempt
    loop._preempt = lambda sample: (put_out.append(sample.index), original(sample))[1]  # type: ignore[method-assign]
    for request in requests():
        loop.add(request)
    drain(loop)
    assert put_out


@pytest.mark.parametrize("settings", [{}, {"rows": 5}, {"sequences": 2}, {"pages": 9}], ids=str)
def test_n_samples_fork_the_prompt(model: ToyModel, settings: dict[str, Any]) -> None:
    prompt = prompts()[3]
    params = SamplingParams(n=4, seed=11, max_tokens=20)

    def run(**options: Any) -> dict[tuple[str, int], tuple[list[int], Event]]:
        loop = engine(model, **options)
        loop.add(Request(prompt, params, "n"))
        loop.add(Request(prompt[:5], SamplingParams(temperature=0), "other"))
        return drain(loop)

    got = run(**settings)
    assert got == run()
    samples = [got["n", index][0] for index in range(4)]
    assert len({tuple(s) for s in samples}) == 4  # each has a stream of its own
    loop = engine(model)
    loop.add(Request(prompt, dataclasses.replace(params, n=1), "n"))
    assert drain(loop)["n", 0][0] == samples[0]


def test_a_request_may_bring_rules_of_its_own(model: ToyModel) -> None:
    """One object per sample: they may have state, and n samples do not share it."""

    class Script:
        def __init__(self) -> None:
            self.drawn = 0

        def apply(self, view: Any, logits: Floats) -> Floats:
            logits.fill(-np.inf)
            logits[7 + self.drawn] = 0
            self.drawn += 1
            return logits

    loop = engine(model)
    loop.add(Request((1, 2, 3), SamplingParams(n=2, max_tokens=4), "own", extra={"rules": (Script,)}))
    loop.add(Request((1, 2, 3), SamplingParams(temperature=0, max_tokens=4), "other"))
    got = drain(loop)
    assert got["own", 0][0] == got["own", 1][0] == [7, 8, 9, 10]
    plain = engine(model)
    plain.add(Request((1, 2, 3), SamplingParams(temperature=0, max_tokens=4), "other"))
    assert got["other", 0][0] == drain(plain)["other", 0][0] != [7, 8, 9, 10]


def test_forked_prompt_is_computed_once() -> None:
    fed: list[int] = []

    class Counting:
        def __init__(self, inner: TextRunner) -> None:
            self.inner = inner

        def step(self, work: Sequence[Work]) -> Floats:
            fed.extend(len(w.tokens) for w in work)
            return self.inner.step(work)

        def peaks(self) -> Sequence[int]:
            return self.inner.peaks()

    loop = engine(ToyModel(ReferenceDevice()), wrap=Counting)
    loop.add(Request(tuple(range(50)), SamplingParams(n=5, max_tokens=3, seed=0)))
    drain(loop)
    assert sum(fed) == 50 + 5 * 2  # the last of the three tokens is never fed


def test_seeds_reproduce_and_differ(model: ToyModel) -> None:
    def run(seed: int | None, engine_seed: int = 0) -> list[int]:
        loop = engine(model, seed=engine_seed)
        loop.add(Request((1, 2, 3), SamplingParams(seed=seed, max_tokens=20), "x"))
        return drain(loop)["x", 0][0]

    assert run(1) == run(1) == run(1, engine_seed=9)
    assert run(1) != run(2)
    assert run(None) == run(None)
    assert run(None) != run(None, engine_seed=1)


def test_two_unseeded_requests_differ(model: ToyModel) -> None:
    loop = engine(model)
    for name in "ab":
        loop.add(Request((1, 2, 3), SamplingParams(max_tokens=20), name))
    got = drain(loop)
    assert got["a", 0][0] != got["b", 0][0]


# ── ends ────────────────────────────────────────────────────────────────────────────────


def greedy(model: ToyModel, prompt: Sequence[int], count: int, **options: Any) -> tuple[list[int], Event]:
    params = {"temperature": 0.0, "max_tokens": count, **options.pop("params", {})}
    loop = engine(model, **options)
    loop.add(Request(tuple(prompt), SamplingParams(**params), "g"))
    return drain(loop)["g", 0]


def test_ends(model: ToyModel) -> None:
    free, event = greedy(model, [1, 2, 3], 20)
    assert len(free) == 20
    assert (event.finish_reason, event.stop_reason) == ("length", None)
    end = free[6]
    first = free.index(end)
    tokens, event = greedy(model, [1, 2, 3], 20, ends={end})
    assert (tokens, event.finish_reason, event.stop_reason) == (free[: first + 1], "stop", None)
    tokens, event = greedy(model, [1, 2, 3], 20, params={"stop_token_ids": [end]})
    assert (tokens, event.finish_reason, event.stop_reason) == (free[: first + 1], "stop", end)
    tokens, event = greedy(model, [1, 2, 3], 20, ends={end}, params={"ignore_eos": True})
    assert (tokens, event.finish_reason) == (free, "length")


def test_min_tokens_holds_the_end_back(model: ToyModel) -> None:
    free, _ = greedy(model, [1, 2, 3], 20)
    tokens, _ = greedy(model, [1, 2, 3], 20, ends={free[0]}, params={"min_tokens": 5})
    assert len(tokens) >= 5
    assert free[0] not in tokens[:5]


@pytest.mark.parametrize(("prompt", "count", "want"), [(20, None, 12), (20, 50, 12), (31, 9, 1), (32, 9, 0), (8, 0, 0)])
def test_generation_stops_at_the_context_s_end(model: ToyModel, prompt: int, count: int | None, want: int) -> None:
    tokens, event = greedy(model, range(prompt), 0, context=32, params={"max_tokens": count})
    assert (len(tokens), event.finish_reason) == (want, "length")


def test_cancel_frees_pages_at_once(model: ToyModel) -> None:
    loop = engine(model)
    loop.add(Request(tuple(range(40)), SamplingParams(max_tokens=50, n=3), "a"))
    loop.add(Request(tuple(range(40)), SamplingParams(max_tokens=5, temperature=0), "b"))
    for _ in range(3):
        loop.step()
    assert loop.cancel("a", 1)
    assert loop.cancel("a")
    assert not loop.cancel("a")
    assert not loop.cancel("nosuch")
    assert loop.capacity - loop.kv.free_tokens() == 48  # only b's three pages
    got = drain(loop)
    assert {index: got["a", index][1].finish_reason for index in range(3)} == dict.fromkeys(range(3), "cancelled")
    assert got["b", 0][1].finish_reason == "length"


def test_cancelling_the_leader_promotes_the_next_sample(model: ToyModel) -> None:
    whole = engine(model)
    params = SamplingParams(n=3, seed=2, max_tokens=6)
    whole.add(Request(tuple(range(30)), params, "n"))
    want = drain(whole)
    for steps in (0, 1):
        loop = engine(model, rows=8)
        loop.add(Request(tuple(range(30)), params, "n"))
        for _ in range(steps):
            loop.step()
        loop.cancel("n", 0)
        got = drain(loop)
        assert got["n", 0][1].finish_reason == "cancelled"
        assert (got["n", 1], got["n", 2]) == (want["n", 1], want["n", 2])


# ── what goes wrong ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_broken_logits_end_one_request_only(poison: float) -> None:
    class Poisoned:
        """Spoils the logits of whoever feeds token 60."""

        def __init__(self, inner: TextRunner) -> None:
            self.inner = inner

        def step(self, work: Sequence[Work]) -> Floats:
            logits, at = self.inner.step(work).copy(), 0
            for piece in work:
                if piece.wanted and 60 in piece.tokens:
                    logits[at, 5] = poison
                at += piece.wanted
            self.logits = logits
            return logits

        def peaks(self) -> Sequence[int]:
            return ReferenceDevice().peaks(self.logits)

    model = ToyModel(ReferenceDevice())
    loop = engine(model, wrap=Poisoned)
    quiet = SamplingParams(max_tokens=6, temperature=0, allowed_token_ids=range(60))
    loop.add(Request((1, 2), quiet, "good"))
    loop.add(Request((3, 60), dataclasses.replace(quiet, n=2), "bad"))
    got = drain(loop)
    assert got["good", 0][1].finish_reason == "length"
    for index in (0, 1):
        assert got["bad", index][1].finish_reason == "error"
        assert "not finite" in str(got["bad", index][1].error)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_step_is_computed_again(
    alone: dict[tuple[str, int], tuple[list[int], Event]], model: ToyModel, when: str
) -> None:
    class Interrupted:
        """Stops every fifth step, before or after the work was done."""

        def __init__(self, inner: TextRunner) -> None:
            self.inner, self.count = inner, 0

        def step(self, work: Sequence[Work]) -> Floats:
            self.count += 1
            if when == "after":
                logits = self.inner.step(work)
            if self.count % 5 == 0:
                raise KeyboardInterrupt
            return logits if when == "after" else self.inner.step(work)

        def peaks(self) -> Sequence[int]:
            return self.inner.peaks()

    loop = engine(model, wrap=Interrupted, rows=40)
    for request in requests():
        loop.add(request)
    got: dict[tuple[str, int], list[int]] = {}
    while loop.has_work():
        try:
            events = loop.step()
        except KeyboardInterrupt:
            continue
        for event in events:
            got.setdefault((event.request_id, event.index), []).extend(event.tokens)
    assert got == {key: tokens for key, (tokens, _) in alone.items()}


def test_refusals_come_before_any_work(model: ToyModel) -> None:
    loop = engine(model, context=32)
    with pytest.raises(BadInput, match="40 tokens but the context holds 32"):
        loop.add(Request(tuple(range(40))))
    with pytest.raises(BadInput, match=r"token id 61, but the model's vocabulary has 61 \(0 to 60\)"):
        loop.add(Request((5, 61)))
    with pytest.raises(BadInput, match="token id -1"):
        loop.add(Request((5, -1)))
    with pytest.raises(BadInput, match="no tokens"):
        loop.add(Request(()))
    with pytest.raises(BadInput, match="logit_bias holds token id 99"):
        loop.add(Request((1,), SamplingParams(logit_bias={99: 1.0})))
    with pytest.raises(BadInput, match="logit_bias of token 1 is nan"):
        loop.add(Request((1,), SamplingParams(logit_bias={1: float("nan")})))
    with pytest.raises(BadInput, match="allowed_token_ids is empty"):
        loop.add(Request((1,), SamplingParams(allowed_token_ids=())))
    loop.add(Request((1,), id="same"))
    with pytest.raises(BadInput, match="'same' is already running"):
        loop.add(Request((1,), id="same"))
    with pytest.raises(OutOfRoom, match="40 tokens but the KV cache holds 32"):
        engine(model, pages=2).add(Request(tuple(range(40))))


def test_a_text_that_outgrows_the_cache_ends_with_an_error(model: ToyModel) -> None:
    tokens, event = greedy(model, range(20), 100, pages=2)
    assert event.finish_reason == "error"
    assert "33 tokens need 1 more pages" in str(event.error)
    assert len(tokens) == 13


def test_logprobs_are_of_the_raw_logits(model: ToyModel) -> None:
    loop = engine(model)
    loop.add(Request((1, 2), SamplingParams(temperature=0, max_tokens=3, logprobs=0), "plain"))
    loop.add(Request((1, 2), SamplingParams(temperature=0.5, seed=1, top_k=1, max_tokens=3, logprobs=2), "odd"))
    events = [event for _ in range(3) for event in loop.step()]
    plain = [e.logprobs[0] for e in events if e.request_id == "plain"]
    odd = [e.logprobs[0] for e in events if e.request_id == "odd"]
    assert [p[0] for p in plain] == [o[0] for o in odd] == [o[1] for o in odd]  # top-k 1: the same tokens
    assert [len(p) for p in plain] == [1, 1, 1]
    assert [len(o) for o in odd] == [3, 3, 3]


def test_score_gives_the_logits_of_every_token(model: ToyModel) -> None:
    loop = engine(model)
    runner, tokens = loop.runner, prompts()[0]
    whole = [x.copy() for x in runner.score(tokens, 512)]  # type: ignore[attr-defined]
    assert len(whole) == 1
    pieces = [x.copy() for x in runner.score(tokens, 7)]  # type: ignore[attr-defined]
    assert np.array_equal(whole[0], np.concatenate(pieces))
    assert loop.kv.free_tokens() == loop.capacity
