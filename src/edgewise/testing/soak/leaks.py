"""R16: what a server keeps of each request after it is over."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import CHAT, Process, handles, memory_bytes, reset, threads

SPACE = ("--ctx-size", "256", "--max-num-seqs", "4", "--chat-template", CHAT)
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
SHAPE = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def theil_sen(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(median slope, upper end of its 95 % interval): robust against jumps. Sen's interval, by Kendall's variance."""
    i, j = np.triu_indices(len(x), 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    n = len(x)
    spread = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    upper = min(len(slopes) - 1, int((len(slopes) + spread) / 2) + 1)
    return float(np.median(slopes)), float(slopes[upper])


def leaks(small: bool, seed: int) -> Found:
    """Every request is unlike all others; a sample of the server's memory now and then, after it has warmed up."""
    # Allocators and pools grow towards a level at first, the slower the more kinds of requests there are: by 13 MiB in
    # the first 1500, in steps of up to 3 MiB, and by 0.1 MiB in the thousand after them.
    warm, count, every = 2000, *((200, 10) if small else (10_000, 50))
    allowed = 16 * 1024 if small else 1024  # bytes a request; a short run cannot tell a small leak from noise
    failed = 0
    with Process(SPACE) as server, ThreadPoolExecutor(4) as pool:

        def one(number: int) -> bool:
            return _mixed(server, np.random.default_rng((seed, number)), number)

        failed += list(pool.map(one, range(warm))).count(False)
        at, used, open_, running = [], [], [], []
        for start in range(0, count, every):
            failed += list(pool.map(one, range(warm + start, warm + start + every))).count(False)
            at.append(float(start + every))
            used.append(float(memory_bytes(server.pid)))
            open_.append(float(handles(server.pid)))
            running.append(float(threads(server.pid)))
        slope, upper = theil_sen(np.array(at), np.array(used))
        drift = [theil_sen(np.array(at), np.array(one))[0] for one in (open_, running)]
        grown = used[-1] - used[0]
    got = (
        f"{count} requests after {warm}: {slope:.0f} bytes each, upper 95 % {upper:.0f} "
        f"(in all {grown / 1024:.0f} KiB); handles {drift[0]:+.4f}, threads {drift[1]:+.4f} a request; {failed} "
        f"answered wrongly"
    )
    ok = upper <= allowed and failed == 0 and max(drift) < 1e-3  # fewer of them is no leak
    return Found(warm + count, failed, got, ok)


def _mixed(server: Process, numbers: np.random.Generator, number: int) -> bool:
    """stream, cancel, whole, logprobs, errors, embeddings, stop strings, chats in every dialect: as they come."""
    text = "".join(chr(int(one)) for one in numbers.integers(32, 0x2FF, int(numbers.integers(1, 80)))) + str(number)
    body: dict[str, Any] = {"prompt": text, "max_tokens": int(numbers.integers(1, 16)), "ignore_eos": True}
    kind = number % 12
    if kind == 0:
        return server.ask("/v1/completions", {**body, "stream": True}).text.endswith("data: [DONE]\n\n")
    if kind == 1:
        reset(server.send({**body, "max_tokens": 100, "stream": True}, read=50))
        return True
    if kind == 2:
        return server.ask("/v1/completions", {**body, "logprobs": 5, "n": 2}).status == 200
    if kind == 3:
        return server.ask("/v1/completions", {**body, f"field{number}": text}).status == 400
    if kind == 4:
        return server.ask("/v1/completions", {**body, "stop": [f"q{number}", "\n\n"]}).status == 200
    if kind == 5:
        return server.ask("/v1/embeddings", {"input": text}).status == 200
    if kind == 6:
        return server.ask("/tokenize", {"prompt": text}).status == 200
    if kind > 7:
        return _chat(server, kind, text, body["max_tokens"])
    bias = {str(int(token)): 1.0 for token in numbers.integers(0, 2000, 20)}
    return server.ask("/v1/completions", {**body, "logit_bias": bias, "frequency_penalty": 0.5}).status == 200


def _chat(server: Process, kind: int, text: str, most: int) -> bool:
    """A talk of a few turns, none of which is the beginning of another."""
    talk = [{"role": role, "content": text[at::3]} for at, role in enumerate(("user", "assistant", "user"))]
    if kind == 8:
        body = {"messages": talk, "max_tokens": most, "stream": True}
        return server.ask("/v1/chat/completions", body).text.endswith("data: [DONE]\n\n")
    if kind == 9:
        return server.ask("/v1/responses", {"input": talk, "max_output_tokens": most, "store": False}).status == 200
    if kind == 10:
        return server.ask("/v1/messages", {"messages": talk, "max_tokens": most}).status == 200
    body = {"messages": talk, "max_tokens": most, "response_format": SHAPE}
    return server.ask("/v1/chat/completions", body).status == 200
