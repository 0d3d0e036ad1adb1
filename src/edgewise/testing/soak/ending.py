"""R10: a server that is told to stop."""

import http.client
import json
import signal
import threading
import time
from functools import partial
from typing import Any

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Process, until


def sigterm(small: bool, seed: int) -> Found:
    """Requests in flight, a signal at some moment, new requests during the drain; then a second signal."""
    rounds, flying, tokens = (1, 4, 450) if small else (20, 10, 450)
    lost = accepted = refused = wrong = 0
    words: list[str] = []
    for at in range(rounds):
        with Process(["--ctx-size", "512", "--drain-timeout", "600"]) as server:  # a stopped process loses time, too
            results: list[str] = []
            begun = threading.Semaphore(0)
            tasks = [
                threading.Thread(target=_fly, args=(server, tokens, number % 2 == 0, results, begun))
                for number in range(flying)
            ]
            for task in tasks:
                task.start()
            for number in range(flying):
                if number % 2 == 0:
                    begun.acquire(timeout=60)  # it streams
            until(partial(_all_there, server, results, flying), 60)
            time.sleep(0.01 * (at % 5))
            server.process.send_signal(signal.SIGTERM)
            until(lambda: _ready(server) != 200, 10)
            status = _status(server)
            refused += status == 503
            if status not in (503, 0):
                wrong += 1
                words.append(f"a new request got {status}")
            for task in tasks:
                task.join(120)
            accepted += flying
            lost += flying - results.count("whole")
            words += [result for result in results if result != "whole"][:2]
            code = server.process.wait(60)
            if code:
                wrong += 1
                words.append(f"exit {code}: {server.said()[-300:]}")
    took = second_signal()
    fails = lost + wrong
    got = f"{accepted} accepted, lost {lost}; {refused} of {rounds} new ones 503; second signal: {took:.2f} s"
    ok = fails == 0 and refused > 0 and (small or took <= 1)
    return Found(accepted, fails, "; ".join([got, *words[:3]]), ok)


def _all_there(server: Process, results: list[str], flying: int) -> bool:
    """Whether every request runs, or has ended already."""
    return _running(server) + len(results) >= flying


def _fly(server: Process, tokens: int, stream: bool, results: list[str], begun: threading.Semaphore) -> None:
    body = {"prompt": [5, tokens], "max_tokens": tokens, "ignore_eos": True, "stream": stream, "temperature": 0}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        begun.release()
        text = reply.read().decode()
        whole = (
            text.endswith("data: [DONE]\n\n") if stream else json.loads(text)["usage"]["completion_tokens"] == tokens
        )
        results.append("whole" if whole else f"cut: {text[-100:]}")
    except Exception as problem:
        results.append(repr(problem))
    finally:
        begun.release()
        connection.close()


def _quietly(server: Process, path: str, body: Any = None) -> tuple[int, str]:
    try:
        answer = server.ask(path, body, timeout=10)
        return answer.status, answer.text
    except (OSError, http.client.HTTPException):
        return 0, ""


def _running(server: Process) -> int:
    status, text = _quietly(server, "/status")
    return len(json.loads(text)["models"][0]["slots"]) if status == 200 else 0


def _ready(server: Process) -> int:
    return _quietly(server, "/ready")[0]


def _status(server: Process) -> int:
    return _quietly(server, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0]


def second_signal() -> float:
    """Seconds from the second signal to the end, with a long request in flight."""
    with Process(["--ctx-size", "1024"]) as server:
        body = {"prompt": [5], "max_tokens": 1000, "ignore_eos": True, "stream": True, "n": 8}
        with server.send(body, read=200):
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "shutting down" in server.said(), 10)
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60)
            return time.monotonic() - begin
