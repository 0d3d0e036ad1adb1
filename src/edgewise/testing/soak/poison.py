"""R08 and R23: one request that goes wrong among others that do not."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgewise.base import SeqId
from edgewise.decode.api import Insider
from edgewise.engine.api import Runner, Work
from edgewise.kernels.api import Array, Floats
from edgewise.serve.llm import LLM
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Answer, Served, reset, serving, until
from edgewise.testing.tiny import tiny_model

# Tokens that make something fail; nobody else may use them.
EARLY, AFTER, NAN, WORDS = 3001, 3002, 3003, 3004
ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, MemoryError, ValueError, KeyError, AssertionError, FloatingPointError, OSError, RecursionError,
    ZeroDivisionError, UnicodeError,
)  # fmt: skip


class Poisoned:
    """A runner that fails before the work, after it, or gives NaN, when a marked token takes part."""

    def __init__(self, inner: Runner) -> None:
        self.inner, self.failed = inner, 0
        self._bad: list[int] = []

    def step(self, work: Sequence[Work]) -> Floats:
        if any(EARLY in piece.tokens for piece in work):
            self.failed += 1
            raise ERRORS[self.failed % len(ERRORS)]("poison, before the work")
        logits = self.inner.step(work)
        if any(AFTER in piece.tokens for piece in work):
            self.failed += 1
            raise ERRORS[self.failed % len(ERRORS)]("poison, after the work")
        self._bad, at, left = [], 0, self.inner.left()
        for piece in work:
            rows = 1 + len(left[piece.seq]) if piece.seq in left else piece.wanted
            if NAN in piece.tokens:
                self._bad += range(at, at + rows)
            at += rows
        return logits

    def peaks(self) -> Sequence[int]:
        best = list(self.inner.peaks())
        for row in self._bad:
            best[row] = -1
        return best

    def left(self) -> Mapping[SeqId, Sequence[int]]:
        return self.inner.left()

    def open_to(self, insider: Insider | None) -> None:
        self.inner.open_to(insider)

    def shown(self) -> Array | None:
        return self.inner.shown()


class Mute:
    """A tokenizer whose streams fail at a marked token."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def stream(self, **options: Any) -> Any:
        words = self.inner.stream(**options)

        class Words:
            def push(self, token: int) -> str:
                if token == WORDS:
                    raise UnicodeError("poison, in the text")
                return str(words.push(token))

            def flush(self) -> str:
                return str(words.flush())

        return Words()


def spoil(llm: LLM) -> None:
    parts = llm.parts
    parts.engine.runner = Poisoned(parts.engine.runner)
    llm._assembly = dataclasses.replace(parts, tokenizer=Mute(parts.tokenizer))


def poisons() -> list[Callable[[Served], Answer | None]]:
    """50 requests that go wrong, each in its own place."""
    made: list[Callable[[Served], Answer | None]] = []

    def ask(**body: Any) -> None:
        made.append(lambda served: served.ask("/v1/completions", {"max_tokens": 12, "ignore_eos": True, **body}))

    def gone(read: int, whole: bool = True, **body: Any) -> None:
        def run(served: Served) -> None:
            more = {"max_tokens": 400, "ignore_eos": True, "stream": True, **body}
            reset(served.send(more, read=read, whole=whole))

        made.append(run)

    for marker in (EARLY, AFTER, NAN):  # in the prompt, at its ends and middle, long and short
        ask(prompt=[marker])
        ask(prompt=[marker, *range(50)])
        ask(prompt=[*range(25), marker, *range(25)])
        ask(prompt=[*range(200), marker])
        ask(prompt=[*range(40), marker], n=4)
        ask(prompt=[1, 2, 3], allowed_token_ids=[marker])  # drawn first, computed next
        ask(prompt=[1, 2, 3], logit_bias={str(marker): 100}, stream=True)
        ask(prompt=[7, marker], stream=True, logprobs=5)
    ask(prompt=[1, 2], allowed_token_ids=[WORDS])
    ask(prompt=[1, 2], allowed_token_ids=[WORDS], n=3, stream=True)
    ask(prompt=[1, 2], logit_bias={str(WORDS): 100}, stop=["x", "y"])
    ask(prompt=[1, 2, 3], allowed_token_ids=[EARLY], n=8, temperature=2, logprobs=20)
    for read in (0, 0, 100, 3000):
        gone(read, prompt=[9] * 300)
        gone(read, prompt="def f(", n=4)
    gone(0, whole=False, prompt="def f(")
    for broken in ({"n": 0}, {"top_p": 9}, {"prompt": [1 << 30]}, {"prompt": [5] * 4000}, {"logit_bias": {"9" * 9: 1}}):
        ask(**{"prompt": "x", **broken})
    for raw in (b"{", b"[" * 5000, b'{"prompt": "\\ud800"}', b"\xff\xfe", b'{"prompt": "a", "max_tokens": 1e999}'):
        made.append(lambda served, raw=raw: served.ask("/v1/completions", raw=raw))  # type: ignore[misc]
    made.append(lambda served: served.ask("/v1/embeddings", {"input": [[1, 2, 1 << 29]]}))
    made.append(
        lambda served: served.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "\0" * 9000}]})
    )
    made.append(lambda served: served.ask("/v1/embeddings", {"input": [[1] * 100, [2] * 600]}))
    return made


def good(number: int) -> dict[str, Any]:
    numbers = np.random.default_rng(number)
    prompt = numbers.integers(0, 3000, int(numbers.integers(2, 60))).tolist()
    return {
        "prompt": prompt, "max_tokens": 10, "temperature": 0 if number % 2 else 1.0, "seed": number, "ignore_eos": True,
        "logprobs": 3, "allowed_token_ids": list(range(3000)),
    }  # fmt: skip


def said(answer: Answer) -> str:
    return json.dumps(answer.json()["choices"]) if answer.status == 200 else answer.text


def poison(small: bool, seed: int) -> Found:
    """Good requests with each poison in turn among them, and one after it: bit for bit, log probabilities too."""
    beside = 5 if small else 15
    wrong = asked = 0
    words: list[str] = []
    with serving(max_num_seqs=16, ctx_size=512, change=spoil) as server, ThreadPoolExecutor(beside + 1) as pool:

        def ask(number: int) -> str:
            return said(server.ask("/v1/completions", good(number)))

        want = [ask(number) for number in range(beside)]
        all_poisons = poisons()
        chosen = all_poisons[seed % 6 :: 6] if small else all_poisons
        for at, one in enumerate(chosen):
            tasks = [pool.submit(ask, number) for number in range(beside // 2)]
            bad = pool.submit(one, server)
            tasks += [pool.submit(ask, number) for number in range(beside // 2, beside)]
            answer = bad.result()
            if answer is not None and answer.status == 200 and '"error"' not in answer.text:
                words.append(f"poison {at} was harmless")
            got = [task.result() for task in tasks] + [ask(at % beside)]
            asked += len(got)
            wrong += sum(a != b for a, b in zip(got, [*want, want[at % beside]], strict=True))
        leaked = not until(server.idle)
        failed = server.model.thread.engine.runner.failed  # type: ignore[attr-defined]
    got_ = f"{len(chosen)} poisons, {asked} requests beside and after them, {wrong} differ; {failed} steps failed"
    ok = wrong == 0 and not leaked and failed > 0
    return Found(asked, wrong + leaked, "; ".join([got_, *words[:3]]) + ("; pages leaked" if leaked else ""), ok)


def broken_model(folder: Path, value: float) -> Path:
    """A tiny model, one row of whose embedding is not finite: token 77."""
    path = tiny_model("llama", folder)
    file = path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    name = next(name for name in header if "embed_tokens" in name)
    rows, width = header[name]["shape"]
    begin, end = header[name]["data_offsets"]
    item = (end - begin) // (rows * width)
    at = 8 + length + begin + 77 * width * item
    data = np.full(width, value, np.float32)
    made = data.tobytes() if item == 4 else (data.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    raw[at : at + len(made)] = made
    file.write_bytes(raw)
    return path


def not_finite(small: bool, seed: int) -> Found:
    """Whoever uses the broken token gets an error and no token; who comes after computes what a fresh server does."""
    tries = fails = 0
    words: list[str] = []
    quiet = {"max_tokens": 8, "temperature": 0, "ignore_eos": True, "logprobs": 2,
             "allowed_token_ids": [token for token in range(259) if token != 77]}  # fmt: skip
    for value in (np.nan,) if small else (np.nan, np.inf, -np.inf):
        with TemporaryDirectory() as folder, np.errstate(all="ignore"):
            path = broken_model(Path(folder) / "m", float(value))
            later = {"prompt": list(range(3, 40)), **quiet}
            with serving(model=path, ctx_size=128) as fresh:
                want = said(fresh.ask("/v1/completions", later))
            with serving(model=path, ctx_size=128) as server:
                for at in range(4 if small else 40):
                    prompt = [*range(3, 4 + at), 77, *range(at % 3)]
                    for stream in (False, True):
                        tries += 1
                        answer = server.ask("/v1/completions", {**quiet, "prompt": prompt, "stream": stream})
                        if stream:
                            frames = answer.frames()
                            fine = [list(frame) for frame in frames] == [["error"]] and answer.status == 200
                        else:
                            fine = answer.status == 500 and "not finite" in answer.json()["error"]["message"]
                        same = said(server.ask("/v1/completions", later)) == want
                        fails += not (fine and same)
                        if not (fine and same):
                            words.append(f"{value} after {at}: {answer.status} {answer.text[:200]}")
                tries += 1
                drawn = {**quiet, "prompt": [5], "logprobs": None, "allowed_token_ids": [77]}
                text = server.ask("/v1/completions", drawn)  # it is drawn, and only the next step fails
                fails += text.status != 500
                fails += not until(server.idle)
    rows = "NaN" if small else "NaN, Inf, -Inf"
    got = f"{tries} requests over a row of {rows}, each with a good one after it: {fails} wrong"
    return Found(tries, fails, "; ".join([got, *words[:3]]), fails == 0)
