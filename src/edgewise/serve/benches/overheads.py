"""`edgewise bench overheads`: where the wall time of a served request goes, in spans, beside the engine alone.

Paper:  "Beyond Inference": server overheads of deep learning (its half about language models): the same ledger over
        JSON, tokens, schedule, forward, text, frames
Exact.  It measures only.
Needs:  nothing
Cost:   as long as its requests take; the ledger itself a few microseconds a request and a step
Status: kept
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import Request, SamplingParams
from edgewise.serve.options import Json, Threads, table


def measure_overheads(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    clients: Annotated[str, typer.Option(help="at once, separated by commas")] = "1,32",
    requests: Annotated[int, typer.Option("-n", min=1, help="of each client")] = 8,
    prompt: Annotated[int, typer.Option("-p", min=1, help="tokens of a prompt, as text")] = 128,
    tokens: Annotated[int, typer.Option("-g", min=1, help="tokens of an answer")] = 16,
    rounds: Annotated[int, typer.Option(min=0, help="interleaved pairs of server and engine alone; 0 skips them")] = 15,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Shares of the time to the first token (and of the whole request) of each span; `besides`: all but the forward
    passes, its own and those it waited for. explained: what the spans add up to. server_minus_engine_ms: time to the
    first token over HTTP, as a client in another process sees it, less the engine's alone, median of pairs."""
    try:
        many = [int(one) for one in clients.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--clients is '{clients}' but must be numbers separated by commas.") from None
    found = measure(model, many, requests, prompt, tokens, rounds, threads)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['model']}: prompts of {found['prompt_tokens']} tokens, answers of {tokens}")
    spans = list(found["rows"][0]["first_token"]["shares"])
    head = ["clients", "to", "seconds", *spans, "explained", "besides"]
    body = [
        [str(row["clients"]), what.replace("_", " "), f"{row[what]['mean_s']:.4f}",
         *(f"{100 * row[what]['shares'][span]:.2f}%" for span in spans), f"{100 * row[what]['explained']:.1f}%",
         f"{100 * row[what]['besides']:.2f}%"]
        for row in found["rows"] for what in ("first_token", "end")
    ]  # fmt: skip
    print(table([head, *body], set(range(2, len(head)))))
    if rounds:
        print(f"server minus engine, first token: {found['server_minus_engine_ms']:.2f} ms (median of {rounds})")


def measure(
    model: str | None, clients: list[int], requests: int, prompt: int, tokens: int, rounds: int, threads: int | None
) -> dict[str, Any]:
    from edgewise.embedded import embedded_model
    from edgewise.serve.asking import Asker
    from edgewise.serve.http.hosted import Hosted
    from edgewise.serve.http.running import Background
    from edgewise.serve.http.settings import Settings
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    hosted: list[Hosted] = []

    def hosts() -> list[Hosted]:
        llm = LLM(path, threads=threads, max_num_seqs=max(clients), ctx_size=max(256, 2 * (prompt + tokens)))
        hosted.append(Hosted(llm, "model"))
        return hosted

    with Background(hosts, Settings(port=0, queue=10_000)) as server, Asker() as asker:
        one, port = hosted[0], int(server.url.rpartition(":")[2])
        numbers = np.random.default_rng(0)
        vocab = one.llm.parts.spec.vocab
        options = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}

        def body() -> dict[str, Any]:
            """A text that nobody asked before, of about so many tokens."""
            ids = numbers.integers(vocab // 8, vocab // 2, 2 * prompt).tolist()
            text = one.tokenizer.decode(ids, skip_special=True)
            while len(one.tokenizer.encode(text)) > prompt:
                text = text[: int(len(text) * max(0.5, min(0.97, prompt / len(one.tokenizer.encode(text)))))]
            return {"prompt": text, **options}

        _ask_booked(one, lambda: asker.ask(port, "/v1/completions", [body() for _ in range(3)], 1), 3)  # warms up
        rows = []
        for count in clients:
            one.tally.ledgers.recent.clear()
            bodies = [body() for _ in range(count * requests)]
            _ask_booked(one, partial(asker.ask, port, "/v1/completions", bodies, count), len(bodies))
            rows.append({"clients": count, **_shares(list(one.tally.ledgers.recent))})
        pairs = [_pair(one, asker, port, body(), turn % 2 == 0) for turn in range(rounds)]
        out: dict[str, Any] = {
            "model": one.llm.name, "prompt_tokens": len(one.tokenizer.encode(body()["prompt"])), "tokens": tokens,
            "rows": rows,
        }  # fmt: skip
        if pairs:
            out["server_minus_engine_ms"] = 1e3 * statistics.median(there - alone for there, alone in pairs)
            out["engine_ttft_ms"] = 1e3 * statistics.median(alone for _, alone in pairs)
        return out


def _ask_booked(one: Any, ask: Callable[[], object], requests: int) -> None:
    """Asks, and waits until all is booked: that comes after the last byte, which the client may see first."""
    upto, patience = one.tally.ledgers.count + requests, time.perf_counter() + 10
    ask()
    while one.tally.ledgers.count < upto and time.perf_counter() < patience:
        time.sleep(0.001)


def _shares(ledgers: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"requests": len(ledgers)}
    for at, name in enumerate(("first_token", "end")):
        rows = [pair[at] for pair in ledgers]
        wall = sum(row.wall for row in rows)
        found[name] = {
            "mean_s": wall / len(rows),
            "shares": {span: sum(row.spans[span] for row in rows) / wall for span in rows[0].spans},
            "explained": sum(row.explained * row.wall for row in rows) / wall,
            "besides": sum(row.besides for row in rows) / wall,
        }
    return found


def _pair(one: Any, asker: Any, port: int, body: dict[str, Any], served_first: bool) -> tuple[float, float]:
    """(over HTTP, alone in the engine's thread), seconds to the first token, each after a pause; no page is kept."""
    engine = one.llm.parts.engine
    pages = engine.kv.pages
    ids = one.tokenizer.encode(body["prompt"], add_special=True)

    def alone() -> float:
        begin = time.perf_counter()
        engine.add(Request(tuple(ids), SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True), "alone"))
        while engine.has_work():
            engine.step()
        return time.perf_counter() - begin

    def served() -> float:
        answers = asker.ask(port, "/v1/completions", [{**body, "max_tokens": 1}], 1)["answers"]
        return float(answers[0]["ttft_s"])

    def direct() -> float:
        return float(asyncio.run_coroutine_threadsafe(one.thread.call(alone), one.thread.loop).result())

    pages.reuse = False
    found = {}
    try:
        for run in (served, direct) if served_first else (direct, served):
            time.sleep(0.02)
            found[run] = run()
    finally:
        pages.reuse = True
    return found[served], found[direct]
