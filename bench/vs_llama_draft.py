"""A draft model here and in llama.cpp: the same pair of GGUF files, each engine beside its own plain decoding.

    python bench/vs_llama_draft.py MODEL.gguf --draft DRAFT.gguf --server PATH/llama-server [-t 2] [-n 64] [--pairs 7]

llama-server runs twice, with and without its draft model, ours in this process; all four lines decode greedily from the
same token ids, by turns, and whoever waits is stopped. Speeds are of decoding alone: llama-server's own timings, and
ours from the first token on. Prints medians, each engine's speed-up with its 95 % interval, and what was accepted.
"""

import argparse
import inspect
import json
import os
import signal
import socket
import statistics
import subprocess
import textwrap
import time
import urllib.request
from typing import Any

from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import build_verifier
from edgewise.serve.llm import LLM
from edgewise.serve.watching import Watched, decode, interval, targeted


class Server:
    """A llama-server that decodes token ids, stopped while it waits."""

    def __init__(self, path: str, arguments: list[str]) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        words = [path, *arguments, "--host", "127.0.0.1", "--port", str(self.port), "--no-webui", "-np", "1"]
        self.child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.child.poll() is None:
            try:
                self.ask("/health")
                return
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"llama-server did not start: {' '.join(words)}")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def run(self, ids: list[int], tokens: int) -> tuple[float, dict[str, Any]]:
        os.kill(self.child.pid, signal.SIGCONT)
        body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
        timings = self.ask("/completion", {**body, "samplers": ["top_k"], "top_k": 1})["timings"]
        os.kill(self.child.pid, signal.SIGSTOP)
        return float(timings["predicted_per_second"]), timings

    def close(self) -> None:
        self.child.kill()
        self.child.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--draft", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-n", "--tokens", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    common = ["-m", args.model, "-t", str(args.threads), "-c", "1024"]
    drafting = ["-md", args.draft, "--spec-draft-n-max", str(args.depth), "--spec-type", "draft-simple"]
    servers = {
        "llama.cpp": Server(args.server, common),
        "llama.cpp + draft": Server(args.server, [*common, *drafting]),
    }
    speeds: dict[str, list[float]] = {}
    seen: dict[str, Any] = {}
    try:
        with LLM(args.model, threads=args.threads, max_num_seqs=1, ctx_size=1024) as llm:
            ids = llm.tokenizer.encode(inspect.getsource(textwrap), add_special=True)[:256]
            engine: Any = llm.parts.engine
            verifier = build_verifier("auto", "some", engine.verifier.sampler)
            ours = {
                "edgewise": Watched(SPECULATORS.build("none")),
                "edgewise + draft": Watched(SPECULATORS.build(f"draft:model={args.draft},depth={args.depth}")),
            }
            for member in ours.values():
                member.prepare(targeted(llm, 1))
            from edgewise.base import Request, SamplingParams

            asked = [Request(tuple(ids), SamplingParams(temperature=0, max_tokens=args.tokens, ignore_eos=True))]
            for at in range(args.pairs + 1):  # the first is not counted
                for name, member in ours.items():
                    engine.draft_with(member, verifier)
                    got, seconds = decode(engine, asked)
                    if at:
                        speeds.setdefault(name, []).append((len(got[0]) - 1) / seconds)
                for name, server in servers.items():
                    speed, seen[name] = server.run(ids, args.tokens)
                    if at:
                        speeds.setdefault(name, []).append(speed)
    finally:
        for server in servers.values():
            os.kill(server.child.pid, signal.SIGCONT)
            server.close()
    for engine_name in ("edgewise", "llama.cpp"):
        plain, drafted = speeds[engine_name], speeds[f"{engine_name} + draft"]
        ratios = [fast / slow for slow, fast in zip(plain, drafted, strict=True)]
        low, high = interval(ratios)
        print(
            f"{engine_name:10} plain {statistics.median(plain):7.1f} tok/s, with a draft model "
            f"{statistics.median(drafted):7.1f}: {statistics.median(ratios):.3f}x ({low:.3f}-{high:.3f})"
        )
    theirs = seen["llama.cpp + draft"]
    member = ours["edgewise + draft"]
    print(
        f"accepted of drafted: edgewise {member.acceptance:.2f}, llama.cpp "
        f"{theirs.get('draft_n_accepted', 0) / max(1, theirs.get('draft_n', 0)):.2f}; depth {args.depth}, "
        f"{args.tokens} tokens, {args.threads} threads, {args.pairs} pairs"
    )


if __name__ == "__main__":
    main()
