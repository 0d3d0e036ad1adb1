"""R05: little input, much work: templates, patterns of a tokenizer, bodies."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from edgewise.testing.soak import Found
from edgewise.testing.soak.extremes import ASK
from edgewise.testing.soak.serving import Served, environment, memory_bytes, rank, serving

CPU_S, ROOM_BYTES = 1.0, 64 << 20


def in_a_child(small: bool) -> dict[str, str]:
    """Templates and patterns, in a process that may take 64 MB more than it starts with: name → what came of it."""
    command = [sys.executable, "-m", "edgewise.testing.soak.bombs", "small" if small else "full"]
    child = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    found = dict(json.loads(line) for line in child.stdout.splitlines())
    if child.returncode:
        found["the child itself"] = f"bad: exit {child.returncode} {child.stderr[-300:]}"
    return found


def child(small: bool) -> None:
    from edgewise.base import BadInput, Unsupported
    from edgewise.testing.bombs import PATTERNS, QUADRATIC, TEMPLATES
    from edgewise.text.regexes import check_patterns
    from edgewise.text.template import Template

    Template("{{ messages }}").render({"messages": [1]})
    check_patterns([r"\d"], "tokenizer.json")
    with open("/proc/self/statm") as file:
        start = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (start + ROOM_BYTES,) * 2)
    step = 9 if small else 1
    for name, source in list(TEMPLATES.items())[::step]:
        begin = time.process_time()
        try:
            Template(source).render({"messages": []})
            what = "done"
        except BadInput:
            what = "refused"
        spent = time.process_time() - begin
        print(json.dumps([f"template {name}", what if spent <= CPU_S or small else f"bad: {spent:.1f} s"]))
    for at, pattern in enumerate([*PATTERNS, *QUADRATIC][::step]):
        begin = time.process_time()
        try:
            check_patterns([pattern], "tokenizer.json")
            what = "bad: taken"
        except (BadInput, Unsupported):
            what = "refused"
        spent = time.process_time() - begin
        print(json.dumps([f"pattern {at}", what if spent <= CPU_S or small else f"bad: {spent:.1f} s"]))


def schemas() -> Iterator[Any]:
    deep: Any = {"type": "string"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep, "b": deep}, "required": ["a"]}
    yield {"type": "object", "properties": {f"k{at}": {"type": "string"} for at in range(5000)}}
    yield {"$ref": "#"}
    yield {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    yield {"type": "string", "pattern": "(a+)+$"}
    yield {"type": "string", "pattern": "(((a{100}){100}){100}){100}"}
    yield {"type": "string", "minLength": 10**9}
    yield {"type": "array", "minItems": 10**9, "items": {"type": "integer"}}
    yield {"enum": ["x" * 1000 + str(at) for at in range(60)]}
    yield {"allOf": [{"anyOf": [{"type": "string", "pattern": f"{at}.*"} for at in range(20)]}] * 20}


def requests() -> Iterator[tuple[str, bytes]]:
    text, chat = "/v1/completions", "/v1/chat/completions"

    def body(path: str, **fields: Any) -> tuple[str, bytes]:
        return path, json.dumps({"max_tokens": 4, **fields}, ensure_ascii=False).encode()

    yield text, b'{"prompt":' + b"[" * 2_000_000
    yield text, b'{"prompt":' + b'{"a":' * 500_000
    yield text, b'{"prompt":[' + b"1," * 1_900_000 + b"1]}"
    yield text, b'{"prompt":[' + b"[]," * 1_300_000 + b"1]}"
    yield text, b'{"prompt":"x","seed":' + b"9" * 3_900_000 + b"}"
    yield text, b'{"prompt":"x","temperature":0.' + b"9" * 3_900_000 + b"}"
    yield text, b'{"prompt":"' + b"\\u0061" * 600_000 + b'"}'
    yield text, b"{" + b",".join(b'"k%d":1' % at for at in range(150_000)) + b"}"
    for piece in ("a", " ", "\n", "é", "🦙", "ab ", "\u0301", "0", "(", "_"):
        yield body(text, prompt=piece * (3_800_000 // len(json.dumps(piece, ensure_ascii=False).encode()[1:-1])))
    yield body(text, prompt=["a" * 50_000] * 64)
    yield body(text, prompt=[[1] * 5000] * 64)
    yield body(text, prompt="x", stop=[("a" * 999) + str(at) for at in range(16)])
    yield body(text, prompt="x", logit_bias={str(at): 1 for at in range(100_000)})
    yield body(text, prompt="x", allowed_token_ids=[5] * 200_000)
    yield body(text, prompt="x", stop_token_ids=list(range(100_000)))
    yield body(chat, messages=ASK * 50_000)
    yield body(chat, messages=[{"role": "user", "content": "{{" * 500_000}])
    yield body(chat, messages=[{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}])
    yield body(
        chat,
        messages=ASK,
        chat_template="{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    )
    yield body(chat, messages=ASK, chat_template_kwargs={f"k{at}": "x" * 1000 for at in range(3000)})
    for schema in schemas():
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        yield body(chat, messages=ASK, response_format=wanted)
    yield (
        chat,
        b'{"messages":[{"role":"user","content":"x"}],"response_format":'
        + b'{"a":' * 60_000
        + b"1"
        + b"}" * 60_000
        + b"}",
    )
    for regex in ("(a+)+$", "((a{100}){100}){100}", "(" * 60_000 + ")" * 60_000, "a{1000000}"):
        yield body(chat, messages=ASK, structured_outputs={"regex": regex})
    yield body(chat, messages=ASK, structured_outputs={"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000})
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    yield body(
        chat,
        messages=ASK,
        tools=[{"type": "function", "function": {**function, "name": f"f{at}"}} for at in range(9000)],
    )


def bombs(small: bool, seed: int) -> Found:
    """Bodies go to a server while somebody asks for its health."""
    words: list[str] = []
    made = in_a_child(small)
    bad = [f"{name}: {what}" for name, what in made.items() if what.startswith("bad")]
    plans = list(requests())
    if small:
        plans = [plan for at, plan in enumerate(plans) if at % 4 == seed % 4]
    waits: list[float] = []
    most_cpu = most_bytes = 0.0
    with serving(ctx_size=256) as server:
        stop = threading.Event()
        asker = threading.Thread(target=_ask_health, args=(server, stop, waits))
        server.ask("/v1/chat/completions", {"messages": ASK, "max_tokens": 2})
        asker.start()
        try:
            for at, (path, raw) in enumerate(plans):
                memory, cpu = memory_bytes(), time.process_time()
                try:
                    answer = server.ask(path, raw=raw)
                    fine = answer.status < 500
                    what = f"{answer.status} {answer.text[:80]}"
                except OSError as problem:
                    fine, what = False, repr(problem)
                spent, grown = time.process_time() - cpu, memory_bytes() - memory
                most_cpu, most_bytes = max(most_cpu, spent), max(most_bytes, grown)
                if not fine or (not small and (spent > CPU_S or grown > ROOM_BYTES)):
                    bad.append(f"request {at} {raw[:40]!r}: {spent:.2f} s, {grown >> 20} MB, {what}")
        finally:
            stop.set()
            asker.join()
    p99 = rank(waits, 0.99)
    tries = len(made) + len(plans)
    got = (
        f"{len(made)} templates and patterns, {len(plans)} bodies: {len(bad)} not stopped in time; "
        f"most CPU {most_cpu:.2f} s, memory {most_bytes / (1 << 20):.0f} MB; /health P99 {1e3 * p99:.0f} ms of "
        f"{len(waits)}"
    )
    ok = not bad and (small or p99 <= 0.1)
    return Found(tries, len(bad), "; ".join([got, *words, *bad[:4]]), ok)


def _ask_health(server: Served, stop: threading.Event, waits: list[float]) -> None:
    while not stop.wait(0.01):
        begin = time.monotonic()
        if server.ask("/health").status == 200:
            waits.append(time.monotonic() - begin)
        else:
            waits.append(99.0)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    child(sys.argv[1] == "small")
