"""R17: what the server says a request used, beside an independent count."""

from typing import Any

import numpy as np
import tokenizers

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Answer, Served, reset, serving, until

WORDS = (
    "def ",
    "x",
    " = ",
    "1",
    "\n",
    "    ",
    "return ",
    "é",
    "世界",
    "(",
    ")",
    "# a comment",
    "for i in range(9):",
    "🦙",
)


class Counter:
    """Tokens by the `tokenizers` library from the vocabulary alone, and drawn tokens by our own engine, alone."""

    def __init__(self, server: Served) -> None:
        self.llm = server.model.llm
        inner = getattr(self.llm.tokenizer, "tokenizer", None) or getattr(self.llm.tokenizer, "_tokenizer", None)
        self.library = inner if isinstance(inner, tokenizers.Tokenizer) else None

    def text(self, text: str) -> int:
        if self.library is not None:
            return len(self.library.encode(text, add_special_tokens=False).ids)
        return len(self.llm.tokenizer.encode(text))


def usage(small: bool, seed: int) -> Found:
    """Streams, several samples, stop strings, ends of text, known prefixes, several prompts, all dialects, cancels."""
    count = 60 if small else 2000
    numbers = np.random.default_rng(seed)
    wrong = 0
    words: list[str] = []
    with serving(ctx_size=256) as server:
        counter = Counter(server)
        kinds = (_plain, _plain, _streamed, _samples, _stopped, _chat, _anthropic, _ollama, _prompts, _repeated)
        for at in range(count):
            text = "".join(numbers.choice(WORDS, int(numbers.integers(1, 12))))
            tokens = int(numbers.integers(1, 24))
            problem = kinds[at % len(kinds)](server, counter, text, tokens)
            wrong += problem is not None
            words += [problem] if problem else []
        tally = server.model.tally
        before = tally.finished["abort"]
        cancels = 5 if small else 50
        for _ in range(cancels):
            reset(server.send({"prompt": "x", "max_tokens": 200, "ignore_eos": True, "stream": True}, read=400))
        wrong += not until(server.idle)
        aborted = tally.finished["abort"] - before
    library = "tokenizers" if counter.library is not None else "a fresh encoding"
    got = f"{count} answers recounted with {library}: {wrong} differ; {aborted} of {cancels} cancelled ones counted so"
    return Found(count + cancels, wrong, "; ".join([got, *words[:3]]), wrong == 0 and aborted == cancels)


def _body(text: Any, tokens: int, **more: Any) -> dict[str, Any]:
    return {"prompt": text, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}


def _check(answer: Answer, found: Any, prompt: int, made: int) -> str | None:
    want = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
    got = {name: (found or {}).get(name) for name in want}
    return None if answer.status == 200 and got == want else f"{got} instead of {want}: {answer.text[:120]}"


def _plain(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    answer = server.ask("/v1/completions", _body(text, tokens))
    return _check(answer, answer.json().get("usage"), counter.text(text), tokens)


def _streamed(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    answer = server.ask("/v1/completions", _body(text, tokens, stream=True, stream_options={"include_usage": True}))
    frames = answer.frames()
    counted = [frame["usage"] for frame in frames if frame.get("usage")]
    return _check(answer, counted[0] if len(counted) == 1 else None, counter.text(text), tokens)


def _samples(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    answer = server.ask("/v1/completions", _body(text, tokens, n=3, temperature=1.0, seed=tokens))
    return _check(answer, answer.json().get("usage"), counter.text(text), 3 * tokens)


def _stopped(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    """A stop string out of the answer itself; the tokens up to it are counted by what each of them is."""
    free = server.ask("/v1/completions", _body(text, tokens, logprobs=0)).json()["choices"][0]
    drawn = free["logprobs"]["tokens"]
    stop = free["text"][len(free["text"]) // 2 :][:2]
    if not stop:
        return None
    answer = server.ask("/v1/completions", _body(text, tokens, stop=[stop], logprobs=0))
    found = answer.json()
    kept = found["choices"][0]["logprobs"]["tokens"]
    fine = kept == drawn[: len(kept)] and stop not in found["choices"][0]["text"]
    whole = "".join(kept)
    fine &= stop in whole or "�" in whole or len(kept) == tokens
    problem = _check(answer, found.get("usage"), counter.text(text), len(kept))
    return problem if fine else f"stop {stop!r}: kept {kept} of {drawn}"


def _chat(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    answer = server.ask("/v1/chat/completions", body)
    return _check(answer, answer.json().get("usage"), counter.text(f"# user: {text}\n# assistant:\n"), tokens)


def _anthropic(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    body = {"model": "base", "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    answer = server.ask("/v1/messages", body)
    found = answer.json().get("usage", {})
    prompt = counter.text(f"# user: {text}\n# assistant:\n")
    told = server.ask("/v1/messages/count_tokens", {"model": "base", "messages": body["messages"]}).json()
    ended = answer.json().get("stop_reason") == "end_turn"
    if told.get("input_tokens") != prompt or found.get("input_tokens") != prompt:
        return f"{found} and {told} instead of {prompt}"
    made = found.get("output_tokens", 0)
    return None if made == tokens or (ended and 0 < made <= tokens) else f"{found} instead of {tokens}"


def _ollama(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    body = {"model": "base", "prompt": text, "raw": True, "stream": False,
            "options": {"num_predict": tokens, "temperature": 0}}  # fmt: skip
    found = server.ask("/api/generate", body).json()
    prompt = counter.text(text)
    ended = found.get("done_reason") == "stop"
    made = found.get("eval_count", 0)
    fine = found.get("prompt_eval_count") == prompt and (made == tokens or (ended and 0 < made <= tokens))
    return None if fine else f"{found} instead of {prompt}, {tokens}"


def _prompts(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    answer = server.ask("/v1/completions", _body([text, text + "\n", "x"], tokens))
    prompt = sum(counter.text(one) for one in (text, text + "\n", "x"))
    return _check(answer, answer.json().get("usage"), prompt, 3 * tokens)


def _repeated(server: Served, counter: Counter, text: str, tokens: int) -> str | None:
    """A long prompt twice: the second finds its pages, and counts the same."""
    long = text * 8
    if counter.text(long) + tokens > 256:
        long = text
    first = server.ask("/v1/completions", _body(long, tokens))
    second = server.ask("/v1/completions", _body(long, tokens))
    if first.json()["choices"] != second.json()["choices"]:
        return f"a known prefix changed the answer to {long[:50]!r}"
    return _check(second, second.json().get("usage"), counter.text(long), tokens)
