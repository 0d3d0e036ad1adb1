"""Streams byte by byte, clients that leave or do not read, metrics, and how a server ends."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import httpx
import pytest

from edgewise.embedded import embedded_model
from edgewise.serve.http.running import listen
from edgewise.serve.http.settings import Settings

pytestmark = pytest.mark.native
LONG = {"model": "base", "prompt": "def f(", "ignore_eos": True, "max_tokens": 1000}


def raw(served, body, *, read=0, complete=True):
    """A request over a plain socket: nothing hidden."""
    sock = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))
    data = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test-key\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    sock.sendall(head.encode() + (data if complete else data[:10]))
    if read:
        assert sock.recv(read)
    return sock


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_small_packets_do_not_wait_for_each_other():
    with listen("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP  # then asyncio sets TCP_NODELAY on what it accepts


def test_frames(served):
    frames = served.frames(
        "/v1/chat/completions",
        {"model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 6, "stream": True,
         "ignore_eos": True},
    )  # fmt: skip
    assert frames[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(len(frame["choices"]) == 1 and "usage" not in frame for frame in frames)
    assert all(isinstance(frame["choices"][0]["delta"], dict) for frame in frames)
    assert [frame["choices"][0]["finish_reason"] for frame in frames][-1] == "length"


@pytest.mark.parametrize("state", ["reading", "writing", "whole", "waiting", "body"])
def test_a_disconnect_frees_the_pages(served, state):
    served.until(served.idle)
    thread = served.model.thread
    for _ in range(5):
        blockers = []
        if state == "waiting":  # more than the engine takes at once
            blockers = [raw(served, {**LONG, "stream": True}) for _ in range(10)]
        if state == "body":
            sock = raw(served, LONG, complete=False)
        else:
            body = {**LONG, "stream": state != "whole"}
            if state == "reading":
                body["prompt"], body["max_tokens"] = [7] * 900, 100
            sock = raw(served, body, read=200 if state == "writing" else 0)
            served.until(lambda: bool(thread.streams) or thread.tally.finished["length"] > 0)
        reset(sock)
        for blocker in blockers:
            reset(blocker)
    served.until(served.idle)
    assert thread.engine.counts() == (0, 0)


def test_a_stop_string_and_a_cancel_leave_nothing(served):
    served.until(served.idle)
    served.ask("/v1/completions", {**LONG, "stop": ["a", "e", "(", "\n"], "n": 4})
    served.until(served.idle)


def test_metrics_count_what_was_done(served):
    def read():
        lines = [line for line in served.ask("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    name = '{model_name="base"}'
    before = read()
    served.ask("/v1/completions", {"prompt": [1, 2, 3, 4], "max_tokens": 7, "ignore_eos": True})
    after = read()
    assert after[f"vllm:prompt_tokens_total{name}"] - before[f"vllm:prompt_tokens_total{name}"] == 4
    assert after[f"vllm:generation_tokens_total{name}"] - before[f"vllm:generation_tokens_total{name}"] == 7
    key = f"vllm:time_to_first_token_seconds_count{name}"
    assert after[key] - before[key] == 1
    assert after[f"vllm:num_requests_running{name}"] == 0
    assert after[f"vllm:kv_cache_usage_perc{name}"] == 0


def test_tokenize_and_back(served):
    text = "def f(x):\n    return x"
    made = served.ask("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert made["tokens"] == served.model.tokenizer.encode(text)
    assert made["count"] == len(made["tokens"])
    assert made["max_model_len"] == served.model.context
    assert served.ask("/detokenize", {"tokens": made["tokens"]}).json()["prompt"] == text
    chat = served.ask("/tokenize", {"messages": [{"role": "user", "content": "x"}]}).json()
    used = served.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).json()
    assert chat["count"] == used["usage"]["prompt_tokens"]


def test_alive_and_ready(served):
    assert httpx.get(f"{served.url}/health", trust_env=False).json() == {"status": "ok"}
    assert served.ask("/ready").json() == {"status": "ready"}
    assert served.ask("/status").json()["models"][0]["id"] == "base"


def test_slow_and_half_open_clients_are_dropped(serving):
    with serving(Settings(port=0, keys=("test-key",), header_s=0.2, body_s=0.2, write_s=0.3, ping_s=0.05)) as server:
        port = int(server.url.rpartition(":")[2])
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for sock in half[:10]:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        body = raw(server, LONG, complete=False)
        assert b" 408 " in body.recv(4096).partition(b"\r\n")[0]
        for sock in (*half, body):
            sock.settimeout(10)
            while sock.recv(4096):
                pass  # until the other side closes
            sock.close()
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200


def test_silence_is_filled_with_comments(serving):
    with serving(Settings(port=0, keys=("test-key",), ping_s=0.02)) as server:
        gate = threading.Event()
        thread = server.model.thread
        thread._order(gate.wait)  # the engine is busy with something long
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json={**LONG, "max_tokens": 3, "stream": True}, trust_env=False,
            headers={"authorization": "Bearer test-key"}, timeout=30,
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            assert next(lines) == ": ping"
            assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200  # HTTP does not wait for it
            gate.set()
            rest = [line for line in lines if line and not line.startswith(":")]
        assert rest[-1] == "data: [DONE]"


def test_a_full_queue_is_said(serving):
    with serving(Settings(port=0, keys=("test-key",), queue=1), max_num_seqs=1) as server:
        gate = threading.Event()
        server.model.thread._order(gate.wait)
        socks = [raw(server, {**LONG, "max_tokens": 2})]
        time.sleep(0.2)
        gate.set()
        socks[0].close()
        server.until(server.idle)
        server.model.thread.streams.update({"a": None, "b": None})  # as many as may be there
        answer = server.ask("/v1/completions", LONG)
        server.model.thread.streams.clear()
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"


def test_sigterm_finishes_what_runs_and_a_second_one_ends_it(tmp_path):
    for second in (False, True):
        log = (tmp_path / "log").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "edgewise.serve.cli", "serve", str(embedded_model()), "--port", "0", "-t", "1",
             "--drain-timeout", "600"],
            stderr=log, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        try:
            while "serving on" not in (tmp_path / "log").read_text():
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.05)
            url = (tmp_path / "log").read_text().partition("serving on ")[2].split()[0]
            body = {"prompt": "def f(", "ignore_eos": True, "max_tokens": 1000, "n": 8, "stream": True,
                    "stream_options": {"include_usage": True}}  # fmt: skip
            with httpx.stream("POST", f"{url}/v1/completions", json=body, trust_env=False, timeout=120) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                if second:  # signals that wait for a busy process become one
                    while "shutting down" not in (tmp_path / "log").read_text():
                        assert process.poll() is None
                        time.sleep(0.05)
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(timeout=120) == 1
                    continue
                deadline = time.monotonic() + 120
                while httpx.get(f"{url}/ready", trust_env=False).status_code != 503:
                    assert time.monotonic() < deadline
                refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, trust_env=False)
                assert refused.status_code == 503
                frames = [line for line in lines if line]
            assert frames[-1] == "data: [DONE]"
            assert json.loads(frames[-2][6:])["usage"]["completion_tokens"] == 8000
            assert process.wait(timeout=120) == 0
        except httpx.RemoteProtocolError:
            assert second
        finally:
            process.kill()
            process.wait()
            log.close()
