"""edgewise serve beside llama-server: one client, the same GGUF, the same requests, in turn on one machine.

    python bench/vs_llama_server.py MODEL.gguf --llama-server PATH [-t 2] [--clients 8] [--requests 24] [--rounds 3]
        [--trace AzureLLMInferenceTrace_conv.csv] [--scale 8] [--json]

Both servers stay loaded; the one that waits is stopped. Rounds alternate A B, B A, ... The client
(edgewise.serve.asking, a process of its own) sends token ids, so that both compute the same; every prompt is new, so
that no cache helps. Lengths come from a trace in Azure's format, or from edgewise.sim.load (lognormal, reasoning, ...),
divided by --scale. Printed: output tokens a second, P50 and P99 of the time to the first token, answers whose usage is
missing or wrong; medians of rounds.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.serve.asking import Asker
from edgewise.sim.load import Arrival, load
from edgewise.weights import open_checkpoint

OURS, THEIRS = "edgewise", "llama-server"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def started(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                if child.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} ended: {log.read()[-2000:].decode(errors='replace')}")
                with contextlib.suppress(OSError):
                    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                    if opener.open(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                        break
                time.sleep(0.1)
            yield child
        finally:
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGCONT)
            child.kill()
            child.wait()


def commands(options: argparse.Namespace, context: int, ports: dict[str, int]) -> dict[str, list[str]]:
    """Each as its own documentation says for so many clients; the context is that of one client."""
    threads, clients = str(options.threads), options.clients
    return {
        OURS: [sys.executable, "-m", "edgewise.serve.cli", "serve", str(options.model), "--port", str(ports[OURS]),
               "-t", threads, "--ctx-size", str(context), "--max-num-seqs", str(clients)],
        THEIRS: [str(options.llama_server), "-m", str(options.model), "--host", "127.0.0.1",
                 "--port", str(ports[THEIRS]), "-t", threads, "-np", str(clients),
                 "-c", str(context * clients), *options.flags.split()],
    }  # fmt: skip


def bodies(arrivals: Sequence[Arrival], vocab: int, seed: int) -> list[dict[str, Any]]:
    numbers = np.random.default_rng(seed)
    return [
        {
            "prompt": numbers.integers(vocab // 8, vocab // 2, one.prompt_tokens).tolist(),
            "max_tokens": one.output_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True},
        }
        for one in arrivals
    ]  # fmt: skip


def judge(found: dict[str, Any], asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    answers = found["answers"]
    wrong = 0
    for answer, body in zip(answers, asked, strict=True):
        usage = answer["usage"] or {}
        wanted = (len(body["prompt"]), body["max_tokens"])
        wrong += (usage.get("prompt_tokens"), usage.get("completion_tokens")) != wanted
    first = sorted(answer["ttft_s"] for answer in answers)
    return {
        "tok_s": sum(body["max_tokens"] for body in asked) / found["seconds"], "seconds": found["seconds"],
        "all_tok_s": sum(body["max_tokens"] + len(body["prompt"]) for body in asked) / found["seconds"],
        "ttft_p50_s": statistics.median(first), "ttft_all_s": first, "wrong_usage": wrong,
        "failed": sum(answer["status"] != 200 for answer in answers),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from edgewise.models import read_spec

    header = open_checkpoint(options.model).header()
    vocab = read_spec(header).vocab
    arrivals = load(options.trace, options.requests, options.scale, 0)
    context = -(-max(one.prompt_tokens + one.output_tokens for one in arrivals) // 256) * 256
    ports = {OURS: free_port(), THEIRS: free_port()}
    made = commands(options, context, ports)
    rows: dict[str, list[dict[str, Any]]] = {OURS: [], THEIRS: []}
    names = [OURS, THEIRS] if options.llama_server else [OURS]
    with contextlib.ExitStack() as stack:
        asker = stack.enter_context(Asker())
        children = {name: stack.enter_context(started(made[name], ports[name])) for name in names}
        for name in names:
            warm = bodies(arrivals[:2], vocab, 99)
            asker.ask(ports[name], "/v1/completions", warm, 2)
            children[name].send_signal(signal.SIGSTOP)
        for turn in range(options.rounds):
            asked = bodies(arrivals, vocab, turn)
            for name in names if turn % 2 == 0 else names[::-1]:
                children[name].send_signal(signal.SIGCONT)
                rows[name].append(judge(asker.ask(ports[name], "/v1/completions", asked, options.clients), asked))
                children[name].send_signal(signal.SIGSTOP)
                print(f"{name}: {rows[name][-1]['tok_s']:.1f} tok/s", file=sys.stderr)
    found: dict[str, Any] = {
        "model": options.model.name, "trace": Path(options.trace).stem, "scale": options.scale,
        "clients": options.clients, "requests": len(arrivals), "rounds": options.rounds,
        "threads": options.threads, "context": context,
        "prompt_tokens": sum(one.prompt_tokens for one in arrivals),
        "output_tokens": sum(one.output_tokens for one in arrivals), "servers": {},
    }  # fmt: skip
    for name in names:
        first = sorted(value for row in rows[name] for value in row.pop("ttft_all_s"))
        found["servers"][name] = {
            "tok_s": statistics.median(row["tok_s"] for row in rows[name]),
            "ttft_p50_s": statistics.median(first), "ttft_p99_s": first[min(len(first) - 1, int(0.99 * len(first)))],
            "wrong_usage": sum(row["wrong_usage"] for row in rows[name]),
            "failed": sum(row["failed"] for row in rows[name]), "rounds": rows[name],
        }  # fmt: skip
    if len(names) == 2:
        pairs = zip(rows[OURS], rows[THEIRS], strict=True)
        found["throughput_ratio"] = statistics.median(ours["tok_s"] / theirs["tok_s"] for ours, theirs in pairs)
        p99 = [found["servers"][name]["ttft_p99_s"] for name in (OURS, THEIRS)]
        found["ttft_p99_ratio"] = p99[0] / p99[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path, help="its program; without it only our own server is measured")
    parser.add_argument("--flags", default="", help="further flags of llama-server, in one string")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trace", default="lognormal")
    parser.add_argument("--scale", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['model']}: {found['requests']} requests of {found['trace']} / {found['scale']:g} "
        f"({found['prompt_tokens']} tokens in, {found['output_tokens']} out), {found['clients']} clients, "
        f"{found['threads']} threads, {found['rounds']} rounds"
    )
    for name, row in found["servers"].items():
        print(
            f"{name:14} {row['tok_s']:8.1f} tok/s   first token P50 {row['ttft_p50_s']:.3f} s, "
            f"P99 {row['ttft_p99_s']:.3f} s   usage wrong or missing {row['wrong_usage']}, failed {row['failed']}"
        )
    if "throughput_ratio" in found:
        print(f"throughput {found['throughput_ratio']:.2f}x, P99 of the first token {found['ttft_p99_ratio']:.2f}x")


if __name__ == "__main__":
    main()
