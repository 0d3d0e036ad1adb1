"""R09 and R14: clients that vanish, do not read, or never finish a sentence."""

import contextlib
import resource
import socket
import statistics
import threading
import time
from typing import Any

from edgewise.serve.http.engine_thread import Stream
from edgewise.serve.http.settings import Settings
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Process, Served, handles, memory_bytes, rank, reset, serving, until

LONG: dict[str, Any] = {"prompt": "def f(", "ignore_eos": True, "max_tokens": 400, "stream": True}
STATES = ("waiting", "reading", "writing", "blocked")


class Watch:
    """Notes when each stream is cancelled and when it is gone, in engine steps and seconds."""

    def __init__(self, server: Served) -> None:
        self.thread = thread = server.model.thread
        self.steps: list[int] = []
        self.seconds: list[float] = []  # from the reset to the drop
        self.leaks = 0
        self.reset_s = 0.0
        self._told: dict[str, int] = {}
        drop = thread._drop

        def cancelled(stream: Stream) -> None:
            with thread._wanted:  # as it does, and counted where the order is given
                self._told[stream.request.id] = thread.engine.steps
                thread._orders.append(lambda: thread._drop(stream))
                thread._wanted.notify()

        def dropped(stream: Stream) -> None:
            drop(stream)
            if stream.request.id in self._told:
                self.steps.append(thread.engine.steps - self._told.pop(stream.request.id))
                self.seconds.append(time.monotonic() - self.reset_s)
                held = {sample.request_id for sample in thread.engine._samples.values()}
                self.leaks += stream.request.id in held

        thread.cancel, thread._drop = cancelled, dropped  # type: ignore[method-assign]


def disconnects(small: bool, seed: int) -> Found:
    """A reset in each state, again and again; the pages are counted in the engine's own thread."""
    each = 3 if small else 250
    settings = Settings(port=0, write_s=30.0)
    unfinished = 0
    with serving(settings, ctx_size=1024, max_num_seqs=4) as server:
        watch, thread = Watch(server), server.model.thread
        server.ask("/v1/completions", {**LONG, "max_tokens": 2})
        before = handles()
        for state in STATES:
            for at in range(each):
                blockers = []
                if state == "waiting":  # more than the engine takes at once
                    blockers = [server.send(LONG) for _ in range(4)]
                    until(lambda: len(thread.streams) == 4)
                body = dict(LONG)
                if state == "reading":
                    body |= {"prompt": [7 + at] * 900, "max_tokens": 20}
                if state == "blocked":
                    body |= {"n": 4, "logprobs": 20}
                sock = server.send(body, read=300 if state in ("writing", "blocked") else 0, small=state == "blocked")
                until(lambda held=len(blockers): len(thread.streams) > held)  # type: ignore[misc]
                watch.reset_s = time.monotonic()
                reset(sock)
                for blocker in blockers:
                    reset(blocker)
                unfinished += not until(server.idle)
        gone = until(lambda: handles() <= before, 20)
        late = sum(steps > 1 for steps in watch.steps)
        leaked = server.model.thread.engine.capacity - server.model.thread.engine.kv.free_tokens()
    n = each * len(STATES)
    p99 = rank(watch.seconds, 0.99)
    got = (
        f"{n} resets, {len(watch.steps)} cancelled by them; steps between cancel and free: at most {max(watch.steps)}; "
        f"reset to free P99 {1e3 * p99:.0f} ms; tokens leaked {leaked}, never idle {unfinished}, handles back: {gone}"
    )
    fails = late + unfinished + watch.leaks + (leaked > 0) + (not gone)
    return Found(n, fails, got, fails == 0 and len(watch.steps) >= n // 2 and (small or p99 <= 0.1))


def slow_clients(small: bool, seed: int) -> Found:
    """Stalled readers and slowloris together, beside one who reads; then a process that runs out of file handles."""
    stalled, loris = (4, 40) if small else (100, 500)
    settings = Settings(port=0, header_s=1.0, body_s=1.0, write_s=1.0, connections=2000)
    waits: dict[str, list[float]] = {"readers": [], "stalled": []}
    fails, words = 0, []
    with serving(settings, ctx_size=512, max_num_seqs=8) as server:
        body = {**LONG, "max_tokens": 60, "logprobs": 20}
        for kind, found in waits.items():  # as many who read, and then as many who do not
            with contextlib.ExitStack() as stack:
                before = memory_bytes()
                socks = [stack.enter_context(server.send(body, small=kind == "stalled")) for _ in range(stalled)]
                if kind == "readers":
                    for sock in socks:
                        threading.Thread(target=_drain, args=(sock,), daemon=True).start()
                else:
                    socks += [stack.enter_context(_half(server, at)) for at in range(loris)]
                found += [_pace(server) for _ in range(1 if small else 5)]
                each = max(0, memory_bytes() - before) / max(1, len(socks))
                if kind == "stalled":
                    closed = sum(_closed(sock) for sock in socks[stalled:])
                    fails += loris - closed
                until(server.idle, 120)
        fails += not until(server.idle, 60)
        if server.ask("/health").status != 200:
            fails += 1
            words.append("not healthy afterwards")
    reads, stalls = (statistics.median(waits[kind]) for kind in waits)
    starved = run_out(20 if small else 100)
    fails += starved
    ratio = stalls / reads if reads else 0.0
    got = (
        f"{stalled} stalled readers, {closed} of {loris} half-open closed in time; {each / 1024:.1f} KiB a client; "
        f"another client's time a token {ratio:.2f}× of that beside as many who read; wrong after handles ran "
        f"out: {starved}"
    )
    ok = fails == 0 and (small or (ratio <= 1.1 and each <= 65536))
    return Found(stalled + loris, fails, "; ".join([got, *words]), ok)


def _half(server: Served, at: int) -> socket.socket:
    """A connection that says nothing, half a header, or half a body."""
    if at % 3 == 2:
        return server.send(LONG, whole=False)
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    if at % 3:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
    return sock


def _closed(sock: socket.socket) -> bool:
    sock.settimeout(60)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def _pace(server: Served) -> float:
    """Seconds a token of a well-behaved stream."""
    with server.send({**LONG, "max_tokens": 60}) as sock:
        sock.settimeout(300)  # it queues behind all of them
        text = sock.recv(65536)
        begin = time.monotonic()
        while b"[DONE]" not in text and (part := sock.recv(65536)):
            text = (text + part)[-64:]
    return (time.monotonic() - begin) / 60


def run_out(count: int) -> int:
    """More connections than a server may have handles: it neither ends nor stays deaf."""
    wrong = 0
    with Process(["--ctx-size", "64", "--max-num-seqs", "2"], limits=[(resource.RLIMIT_NOFILE, 40)]) as server:
        body = {"prompt": [5], "max_tokens": 3, "temperature": 0}
        want = server.ask("/v1/completions", body).json()["choices"][0]["text"]
        socks = []
        for _ in range(max(60, count)):
            with contextlib.suppress(OSError):
                socks.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        until(lambda: handles(server.pid) >= 38, 5)
        wrong += server.process.poll() is not None
        for sock in socks:
            sock.close()

        def served() -> bool:
            with contextlib.suppress(OSError):
                answer = server.ask("/v1/completions", body, timeout=5)
                return answer.status == 200 and answer.json()["choices"][0]["text"] == want
            return False

        wrong += not until(served, 60)
    return wrong
