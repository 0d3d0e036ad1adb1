"""R22: prompts and wishes at the edge of the context, in every dialect."""

from typing import Any

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Answer, Served, serving

CONTEXT = 64


def context_edges(small: bool, seed: int) -> Found:
    """limit: the room for prompt and output. Below and at it: served whole. Above it: 400 that names both numbers."""
    tries = fails = 0
    words: list[str] = []
    with serving(ctx_size=CONTEXT) as server:
        for prompt in (1, 2, CONTEXT // 2, CONTEXT - 2, CONTEXT - 1, CONTEXT, CONTEXT + 1, 10 * CONTEXT):
            for room in (-1, 0, 1, 10 * CONTEXT):
                wanted = max(1, CONTEXT - prompt + room)
                for stream in (False, True):
                    tries += 1
                    problem = _completion(server, prompt, wanted, stream)
                    fails += problem is not None
                    words += [problem] if problem else []
        for run in (_chat, _anthropic, _ollama, _ollama_chat, _embeddings, _count):
            for lines in (1, 4 if small else 8, 40, 400):
                tries += 1
                problem = run(server, "x = 1\n" * lines)
                fails += problem is not None
                words += [problem] if problem else []
        tries += 1
        open_end = server.ask("/v1/completions", {"prompt": [5] * (CONTEXT - 3), "max_tokens": 3, "ignore_eos": True})
        fails += open_end.json()["usage"]["completion_tokens"] != 3
    got = (
        f"{tries} requests around a context of {CONTEXT}: {fails} cut, wrongly refused, or refused without the numbers"
    )
    return Found(tries, fails, "; ".join([got, *words[:3]]), fails == 0)


def _overflow(answer: Answer, prompt: int) -> bool:
    """400 with both numbers."""
    if answer.status != 400:
        return False
    error = answer.json()["error"]
    message = error["message"] if isinstance(error, dict) else error
    code = isinstance(error, dict) and error.get("code", "context_length_exceeded") != "context_length_exceeded"
    return not code and str(CONTEXT) in message and (prompt == 0 or str(prompt) in message)


def _completion(server: Served, prompt: int, wanted: int, stream: bool) -> str | None:
    body = {"prompt": [5] * prompt, "max_tokens": wanted, "ignore_eos": True, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    answer = server.ask("/v1/completions", body)
    where = f"prompt {prompt}, wanted {wanted}, stream {stream}: {answer.status} {answer.text[-200:]}"
    if prompt + wanted > CONTEXT:
        return None if _overflow(answer, prompt) else where
    if answer.status != 200:
        return where
    last = answer.frames() if stream else [answer.json()]
    usage = last[-1]["usage"]
    reasons = [one["choices"][0]["finish_reason"] for one in last if one["choices"]]
    fine = usage["prompt_tokens"] == prompt and usage["completion_tokens"] == wanted and reasons[-1] == "length"
    return None if fine else where


def _say(answer: Answer, told: int, least: int, what: str, reason: str | None) -> str | None:
    """told: prompt tokens the answer counts (0: none). least: a prompt is longer than that, so it must be refused."""
    if least > CONTEXT:
        return None if _overflow(answer, 0) else f"{what}: {answer.status} {answer.text[-200:]}"
    fine = answer.status == 200 and 0 < told <= CONTEXT and reason in ("length", "max_tokens", "stop", "end_turn", None)
    return None if fine else f"{what}: {answer.status} {answer.text[-200:]}"


def _tokens(server: Served, text: str) -> int:
    return len(server.model.tokenizer.encode(text))


def _chat(server: Served, text: str) -> str | None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "ignore_eos": True}
    answer = server.ask("/v1/chat/completions", body)  # no limit of its own: until the context is full
    found = answer.json()
    if answer.status == 200 and found["usage"]["total_tokens"] != CONTEXT:
        return f"chat ended at {found['usage']} instead of a full context"
    told = found["usage"]["prompt_tokens"] if answer.status == 200 else 0
    return _say(answer, told, _tokens(server, text), "chat", found["choices"][0]["finish_reason"] if told else None)


def _anthropic(server: Served, text: str) -> str | None:
    body = {"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    answer = server.ask("/v1/messages", body)
    found = answer.json()
    told = found["usage"]["input_tokens"] if answer.status == 200 else 0
    return _say(answer, told, _tokens(server, text), "messages", found.get("stop_reason"))


def _ollama(server: Served, text: str) -> str | None:
    body = {"model": "base", "prompt": text, "raw": True, "stream": False, "options": {"num_predict": 2}}
    answer = server.ask("/api/generate", body)
    found = answer.json()
    told = found.get("prompt_eval_count", 0)
    if answer.status == 200 and told < _tokens(server, text):
        return f"generate saw {told} of {_tokens(server, text)} tokens"
    return _say(answer, told, _tokens(server, text), "generate", found.get("done_reason"))


def _ollama_chat(server: Served, text: str) -> str | None:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": text}],
        "stream": False,
        "options": {"num_predict": 2},
    }
    answer = server.ask("/api/chat", body)
    found = answer.json()
    return _say(
        answer, found.get("prompt_eval_count", 0), _tokens(server, text), "ollama chat", found.get("done_reason")
    )


def _embeddings(server: Served, text: str) -> str | None:
    answer = server.ask("/v1/embeddings", {"input": text})
    told = answer.json()["usage"]["prompt_tokens"] if answer.status == 200 else 0
    return _say(answer, told, _tokens(server, text), "embeddings", None)


def _count(server: Served, text: str) -> str | None:
    """Counting is never refused: it is how a client learns that something is too long."""
    answer = server.ask("/v1/messages/count_tokens", {"model": "base", "messages": [{"role": "user", "content": text}]})
    fine = answer.status == 200 and answer.json()["input_tokens"] >= _tokens(server, text)
    return None if fine else f"count_tokens: {answer.status} {answer.text[-200:]}"
