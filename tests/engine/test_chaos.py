"""Random arrivals, forks, cancellations and shortages: survivors get their tokens, nothing leaks, nothing hangs."""

from typing import Any

import numpy as np
import pytest

from edgewise.base import Event, Request, SamplingParams
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners.text import TextRunner
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.testing.toy import ToyModel

MODEL = ToyModel(ReferenceDevice())


def engine(pages: int, **options: Any) -> Engine:
    kv = MODEL.cache(pages)
    verifier = VERIFIERS.build("none", sampler=SAMPLERS.build("standard"))
    return Engine(
        TextRunner(MODEL, kv, MODEL.device), kv, POLICIES.build("fcfs"), SPECULATORS.build("none"), verifier,
        vocab=61, context=120, ends={4}, **options,
    )  # fmt: skip


def random_request(numbers: np.random.Generator, name: str) -> Request:
    prompt = tuple(numbers.integers(0, 61, int(numbers.integers(1, 60))).tolist())
    params = SamplingParams(
        n=int(numbers.integers(1, 4)), temperature=float(numbers.choice([0.0, 1.0])), seed=int(numbers.integers(9)),
        max_tokens=int(numbers.integers(0, 50)), frequency_penalty=float(numbers.choice([0.0, 0.7])),
    )  # fmt: skip
    return Request(prompt, params, name)


@pytest.mark.parametrize("seed", range(6))
def test_chaos(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    pages, rows, sequences = (int(numbers.integers(*ends)) for ends in ((8, 30), (1, 40), (1, 6)))
    loop = engine(pages, rows=rows, sequences=sequences)
    asked: dict[str, Request] = {}
    tokens: dict[tuple[str, int], list[int]] = {}
    ended: dict[tuple[str, int], Event] = {}
    for _ in range(4000):
        if len(asked) < 14 and numbers.random() < 0.2:
            request = random_request(numbers, f"r{len(asked)}")
            asked[loop.add(request)] = request
        if asked and numbers.random() < 0.03:
            victim = str(numbers.choice(list(asked)))
            loop.cancel(victim, None if numbers.random() < 0.5 else int(numbers.integers(3)))
        for event in loop.step():
            key = event.request_id, event.index
            assert key not in ended
            tokens.setdefault(key, []).extend(event.tokens)
            if event.finish_reason:
                ended[key] = event
        if len(asked) == 14 and not loop.has_work():
            break
    else:
        pytest.fail("the loop hangs")
    assert loop.kv.free_tokens() == loop.capacity
    assert set(ended) == {(name, index) for name, request in asked.items() for index in range(request.params.n)}
    for name, request in asked.items():
        alone = engine(64)
        alone.add(request)
        want: dict[int, list[int]] = {}
        while alone.has_work():
            for event in alone.step():
                want.setdefault(event.index, []).extend(event.tokens)
        for index in range(request.params.n):
            got, last = tokens[name, index], ended[name, index]
            if last.finish_reason == "cancelled":
                assert got == want[index][: len(got)]
            else:
                assert last.error is None
                assert got == want[index]
