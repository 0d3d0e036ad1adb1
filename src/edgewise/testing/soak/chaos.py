"""R15 and R19: every request of a chaotic load ends once, in time, with the tokens it would get alone."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edgewise.assemble import assemble
from edgewise.base import Request, SamplingParams
from edgewise.embedded import embedded_model
from edgewise.serve.commands.check import measure
from edgewise.serve.http import state
from edgewise.serve.http.settings import Settings
from edgewise.sim.clock import VirtualClock
from edgewise.testing.identity import Tally, alone_slots, on_model, play_round, slots
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import reset, serving, until


def end_states(small: bool, seed: int) -> Found:
    """The engine under a virtual clock; then the same chaos through sockets; then a stuck engine and an odd clock."""
    count = 150 if small else 10_000
    tally, fails, words, round_ = Tally(), 0, list[str](), seed
    while tally.requests < count:
        try:
            play_round(round_, 25, slots, alone_slots, tally)
        except AssertionError as problem:
            fails += 1
            words.append(str(problem))
        round_ += 1
    fails += tally.overdue
    web, lost = sockets(30 if small else 1000, seed)
    fails += lost
    trips, wanted = watchdog()
    jumped = clock_jumps()
    fails += (trips != wanted) + jumped
    got = (
        f"{tally.requests} requests: {dict(tally.ends)}, past their deadline {tally.overdue} of {tally.late}; "
        f"over sockets {dict(web)}, without an end {lost}; watchdog {trips} of {wanted}; wrong after clock "
        f"jumps {jumped}"
    )
    return Found(tally.requests + sum(web.values()), fails, "; ".join([got, *words[:3]]), fails == 0)


def sockets(count: int, seed: int) -> tuple[Counter[str], int]:
    """(how they ended, how many did not): streams, whole answers, resets, errors, short deadlines of the server."""
    ends: Counter[str] = Counter()
    numbers = np.random.default_rng(seed)
    plans = [(str(numbers.choice(["stream", "whole", "reset", "bad", "n"])), int(numbers.integers(1, 60)))
             for _ in range(count)]  # fmt: skip
    with serving(Settings(port=0), ctx_size=128) as server:

        def one(plan: tuple[str, int]) -> str:
            kind, tokens = plan
            body: dict[str, Any] = {
                "prompt": [5, 6, tokens],
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
            }
            if kind == "reset":
                sock = server.send({**body, "max_tokens": 120, "stream": True}, read=tokens)
                reset(sock)
                return "reset"
            if kind == "bad":
                status = server.ask("/v1/completions", {**body, "top_p": 7}).status
                return "refused" if status == 400 else f"lost: {status}"
            if kind == "n":
                choices = server.ask("/v1/completions", {**body, "n": 3}).json()["choices"]
                fine = [one["finish_reason"] for one in choices] == ["length"] * 3
                return "three" if fine else f"lost: {choices}"
            reply = server.ask("/v1/completions", {**body, "stream": kind == "stream"})
            if kind == "whole":
                return "whole" if reply.json()["choices"][0]["finish_reason"] == "length" else f"lost: {reply.text}"
            reasons = [frame["choices"][0]["finish_reason"] for frame in reply.frames()]
            once = reply.text.count("data: [DONE]") == 1 and reasons[-1] == "length" and not any(reasons[:-1])
            return "stream" if once else f"lost: {reply.text[-200:]}"

        with ThreadPoolExecutor(12) as pool:
            for end in pool.map(one, plans):
                ends[end] += 1
        lost = sum(number for end, number in ends.items() if end.startswith("lost"))
        return ends, lost + (not until(server.idle))


def watchdog() -> tuple[int, int]:
    """(times /ready said `stuck`, times it should have): the engine's thread held up, and let go again, twice."""
    trips = 0
    before, state.STUCK_S = state.STUCK_S, 0.05
    try:
        with serving(ctx_size=64) as server:
            for _ in range(2):
                gate = threading.Event()
                server.model.thread.soon(lambda gate=gate: gate.wait(60) and None)  # type: ignore[misc]
                trips += until(lambda: server.ask("/ready").status == 503, 20)
                gate.set()
                if not until(lambda: server.ask("/ready").status == 200, 20):
                    trips += 100
    finally:
        state.STUCK_S = before
    return trips, 2


class Jumping(VirtualClock):
    """Stands still, leaps a day ahead, and never goes back, as a monotonic clock of a machine that slept."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._numbers = np.random.default_rng(seed)

    def sleep(self, seconds: float) -> None:
        super().sleep(float(self._numbers.choice([0.0, 0.0, 1e-9, 86400.0])))


def clock_jumps() -> int:
    """Requests with wrong tokens or a wrong end under such a clock. Those with a deadline may end by it."""
    from edgewise.decode.samplers import SAMPLERS
    from edgewise.decode.speculators import SPECULATORS
    from edgewise.decode.verifiers import VERIFIERS
    from edgewise.engine.loop import Engine
    from edgewise.engine.policies import POLICIES
    from edgewise.testing.identity import NAMES, VOCAB

    wrong = 0
    for number, policy in enumerate(NAMES):
        clock = Jumping(number)
        kv, runner = slots(18, clock)
        engine = Engine(
            runner, kv, POLICIES.build(policy), SPECULATORS.build("none"),
            VERIFIERS.build("none", sampler=SAMPLERS.build("standard")), vocab=VOCAB, context=180, rows=16, sequences=4,
            clock=clock,
        )  # fmt: skip
        params = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
        prompts = [tuple(range(at, at + 20)) for at in range(8)]
        for at, prompt in enumerate(prompts):
            engine.add(Request(prompt, params, str(at), extra={"timeout_s": 3600.0} if at % 4 == 0 else {}))
        got: dict[str, list[int]] = {str(at): [] for at in range(8)}
        left = 0
        while engine.has_work() and left < 20_000:
            left += 1
            for event in engine.step():
                got[event.request_id] += event.tokens
                late = event.finish_reason == "error" and int(event.request_id) % 4 == 0
                wrong += bool(event.finish_reason not in (None, "length") and not late)
        for at, prompt in enumerate(prompts):
            want = alone_slots(prompt, 30)
            wrong += got[str(at)] != want[: len(got[str(at)])] or (at % 4 != 0 and len(got[str(at)]) != 30)
        wrong += kv.free_tokens() != engine.capacity
    return wrong


def batch_invariance(small: bool, seed: int) -> Found:
    """Logits of one sequence over batches, chunks, page sizes, threads; then greedy tokens through random engines."""
    cases = differ = 0
    base: Any = None
    for threads in (1, 2):
        parts = assemble(embedded_model(), threads=threads, max_num_seqs=1, ctx_size=256)
        target = np.random.default_rng(seed).integers(0, parts.spec.vocab, 20 if small else 160).tolist()
        for number, (case, logits) in enumerate(measure(parts, threads, target)):
            if small and number % 4 and case.seed:
                continue
            cases += 1
            base = logits if base is None else base
            differ += not np.array_equal(logits.view(np.uint32), base.view(np.uint32))
    tally, words, round_ = Tally(), list[str](), seed
    build, alone, vocab = on_model("embedded")
    wanted = 20 if small else 200
    while tally.requests < wanted:
        try:
            play_round(round_, min(25, wanted - tally.requests), build, alone, tally, vocab)
        except AssertionError as problem:
            differ += 1
            words.append(str(problem))
        round_ += 1
    got = (
        f"{cases} cases of {len(base)} rows of logits, {tally.requests} requests ({tally.tokens} tokens) "
        f"through random engines: {differ} differ; price of strictness: none, one kernel table"
    )
    return Found(cases + tally.requests, differ, "; ".join([got, *words[:3]]), differ == 0)
