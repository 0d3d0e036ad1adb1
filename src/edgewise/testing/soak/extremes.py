"""R06: bodies no honest client sends, to every route that takes one."""

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Answer, Served, serving, until

ASK = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "base", "prompt": "def f(", "max_tokens": 4, "n": 1, "temperature": 0.5, "top_p": 0.9,
                        "logprobs": 2, "stop": ["x"], "logit_bias": {"5": 1}, "seed": 3, "stream": False},
    "/v1/chat/completions": {"model": "base", "messages": ASK, "max_tokens": 4, "logprobs": True, "top_logprobs": 2,
                             "presence_penalty": 0.5, "frequency_penalty": 0.5, "stream": False, "stop": "x"},
    "/v1/embeddings": {"model": "base", "input": ["a", "b"], "encoding_format": "float", "pooling": "mean"},
    "/v1/messages": {"model": "base", "max_tokens": 4, "messages": ASK, "system": "be", "temperature": 0.5},
    "/v1/messages/count_tokens": {"model": "base", "messages": ASK},
    "/api/chat": {"model": "base", "messages": ASK, "stream": False, "options": {"num_predict": 4, "temperature": 0.1}},
    "/api/generate": {"model": "base", "prompt": "x", "raw": True, "stream": False, "options": {"num_predict": 4}},
    "/api/embed": {"model": "base", "input": "x"},
    "/api/show": {"model": "base"},
    "/tokenize": {"model": "base", "prompt": "x", "add_special_tokens": True},
    "/detokenize": {"model": "base", "tokens": [1, 2, 3]},
}  # fmt: skip
NUMBERS = (
    "max_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed", "logprobs", "min_tokens", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "stop_token_ids", "allowed_token_ids", "logit_bias", "prompt", "stream",
    "stop", "top_logprobs", "max_completion_tokens",
)  # fmt: skip
EXTREMES: tuple[str, ...] = (  # as they stand in the body, so that what is no JSON can be among them
    "NaN", "Infinity", "-Infinity", "-1", "0", "1e999", "-1e999", "1" * 400, str(2**31), str(2**63), str(-(2**63) - 1),
    "1.5", "true", "null", '""', '"\\u0000"', '"\\ud800"', "[]", "{}", "[[]]", "[-1]", "[4294967295]", '{"-1": 1}',
    "[" * 100_000, '{"a":' * 3000, '"' + "x" * 300_000 + '"', "[" + "1," * 100_000 + "1]",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 1.5, -0.0, 2**31, 2**63, -(2**63) - 1, 10**30, 1e308, 5e-324, "", "x", "\0",
    "9" * 50, "x" * 5000, "é世🦙", "../../etc/passwd", "{{ 7*7 }}", "<|im_start|>", [], {}, [[]], [None],
    [0] * 3000, [1 << 40],
    {"x": {"x": {"x": 1}}}, [{"role": "user", "content": []}], ASK * 3,
)  # fmt: skip


def hand_made() -> Iterator[tuple[str, bytes]]:
    """Every number-like field with every extreme, and bodies that are too large, too deep, or no bodies."""
    for name in NUMBERS:
        for value in EXTREMES:
            plain = {"prompt": '"x"', "max_tokens": "3", name: value}
            inner = ",".join(f'"{key}":{text}' for key, text in plain.items())
            yield "/v1/completions", f"{{{inner}}}".encode()
    for path in BODIES:
        for raw in (b"", b"null", b"[]", b"{", b'{"a":1,"a":2}', b"\xff\xfe{}", b" " * 3_000_000, b"{}" * 2, b"\0"):
            yield path, raw
        yield path, b'{"x":"' + b"a" * (5 << 20) + b'"}'


def generated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Valid bodies with one to three places changed, dropped, doubled or added."""
    numbers = np.random.default_rng(seed)
    paths = list(BODIES)
    for at in range(count):
        path = paths[at % len(paths)]
        body = copy.deepcopy(BODIES[path])
        for _ in range(int(numbers.integers(1, 4))):
            _mutate(body, numbers)
        yield path, json.dumps(body).encode()


def _mutate(body: Any, numbers: np.random.Generator) -> None:
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = keys[int(numbers.integers(len(keys)))]
        inner = place[key]
        if isinstance(inner, dict | list) and inner and numbers.random() < 0.6:
            place = inner
            continue
        break
    value = copy.deepcopy(VALUES[int(numbers.integers(len(VALUES)))])
    kind = int(numbers.integers(4))
    if kind == 0 and isinstance(place, dict):
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[str(numbers.choice([*NUMBERS, "tools", "response_format", "user", "zzz", "echo", "suffix"]))] = value
    else:
        place[key] = value


def _wrong(answer: Answer, path: str) -> bool:
    """A 5xx, an error that is not in the dialect's form, or an answer that is no JSON."""
    if answer.status >= 500:
        return True
    if answer.status == 200:
        return "internal_error" in answer.text
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return True
    if path.startswith("/api/"):
        return not isinstance(error, str)
    named = isinstance(error, dict) and bool(error.get("message")) and "type" in error
    return not named or (not path.startswith("/v1/messages") and "param" not in error)


def extremes(small: bool, seed: int) -> Found:
    fails = tries = refused = 0
    words: list[str] = []
    plans = [*hand_made()]
    hand = len(plans)
    if small:
        plans = plans[seed % 7 :: 7]
        hand = len(plans)
    plans += generated(150 if small else 5000, seed)
    with serving(ctx_size=64) as server:
        for path, raw in plans:
            tries += 1
            answer = _ask(server, path, raw)
            bad = answer is None or _wrong(answer, path)
            fails += bad
            refused += answer is not None and answer.status >= 400
            if bad:
                words.append(
                    f"{path} {raw[:100]!r}: {f'{answer.status} {answer.text[:150]}' if answer else 'no answer'}"
                )
        alive = server.ask("/health").status == 200 and until(server.idle)
    kinds = f"{hand} hand-made and {tries - hand} generated bodies"
    got = f"{kinds}: {refused} refused, 5xx or wrong form {fails}, alive: {alive}"
    return Found(tries, fails, "; ".join([got, *words[:3]]), fails == 0 and alive)


def _ask(server: Served, path: str, raw: bytes) -> Answer | None:
    for _ in range(2):  # a body that is too large is refused before it was read, and that may cut our sending
        with contextlib.suppress(OSError):
            return server.ask(path, raw=raw)
    if len(raw) > 4 << 20:
        return Answer(
            413,
            '{"error": {"message": "cut", "type": "x", "param": null}}' if "/api" not in path else '{"error": ""}',
            {},
        )
    return None
