"""A model larger than its memory: edgewise beside llama.cpp in control groups of the same size, by turns.

    python bench/beyond_memory.py LAID_OUT_OR_GGUF --gguf M.gguf --llama-bench PATH --cap 1963812720 --state rounds.json

Each call adds one round to --state (a measurement is cut into short bursts that way) and prints the medians of all.
llama.cpp runs with its default mmap and the disk's own read-ahead, and again with 128 KiB. Before every run the page
cache forgets the model, because pages that are there already are charged to nobody. Needs root and cgroup version 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgewise.serve.benches.memory import run
from edgewise.serve.capping import group

MAP = {"llama.cpp": None, "llama.cpp, 128 KiB read-ahead": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="what edgewise runs: a streamed folder, or the GGUF file itself")
    parser.add_argument("--gguf", type=Path, required=True, help="what llama.cpp runs")
    parser.add_argument("--llama-bench", default="llama-bench")
    parser.add_argument("--cap", type=int, required=True, help="bytes; of the process and of its control group")
    parser.add_argument("--state", type=Path, required=True, help="JSON, a round added by every call")
    parser.add_argument("-n", type=int, default=48, help="tokens that edgewise writes")
    parser.add_argument("--slow", type=int, default=4, help="tokens that llama.cpp writes with its defaults; 0: skip")
    parser.add_argument("--tuned", type=int, default=24, help="the same with less read-ahead; 0: skip")
    parser.add_argument("--members", default="+none", help="residency+prefetcher pairs, by commas")
    parser.add_argument("-t", "--threads", type=int, default=2)
    args = parser.parse_args()

    rounds: list[dict[str, Any]] = json.loads(args.state.read_text()) if args.state.exists() else []
    turn: dict[str, Any] = {}
    names = [f"edgewise {member}" for member in args.members.split(",")]
    names += [name for name, ahead in MAP.items() if (args.tuned if ahead else args.slow)]
    for name in names if len(rounds) % 2 == 0 else names[::-1]:
        for path in (args.gguf, *(args.model.iterdir() if args.model.is_dir() else [args.model])):
            forget(path)
        with group(args.cap) as inside:
            if inside is None:
                sys.exit("No control group could be made; this needs root and cgroup version 1.")
            if name in MAP:
                with read_ahead(args.gguf, MAP[name]):
                    turn[name] = llama(args, args.tuned if MAP[name] else args.slow, inside)
            else:
                member = name.removeprefix("edgewise ")
                found = run(args.model, member, str(args.cap), args.n, 512, args.threads, "auto", inside)
                seen = found["memory"]
                turn[name] = {
                    "tok_s": found["tok_s"], "predicted": seen["predicted_tok_s"], "hits": seen["writing_hit_rate"],
                    "peak": seen["peak_bytes"], "ids": found["token_ids"], "slots": seen["slots"],
                }  # fmt: skip
            turn[name]["group_peak"] = int((inside / "memory.max_usage_in_bytes").read_text())
    args.state.write_text(json.dumps([*rounds, turn], indent=1))
    show([*rounds, turn], args.cap)


def llama(args: argparse.Namespace, tokens: int, inside: Path) -> dict[str, Any]:
    """tok/s of decoding with mmap and without repacking, which would need the weights twice."""
    words = [args.llama_bench, "-m", str(args.gguf), "-t", str(args.threads), "-p", "0", "-n", str(tokens), "-r", "1",
             "--no-warmup", "--repack", "0", "-lm", "mmap", "-o", "json"]  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", f'echo $$ > {inside}/cgroup.procs; exec "$@"', "sh", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {"tok_s": json.loads(done.stdout)[0]["avg_ts"]}


@contextmanager
def read_ahead(path: Path, kib: int | None) -> Iterator[None]:
    """The disk's read-ahead while the block runs."""
    device = os.stat(path).st_dev
    setting = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/read_ahead_kb")
    if kib is None:
        yield
        return
    before = setting.read_text()
    setting.write_text(str(kib))
    try:
        yield
    finally:
        setting.write_text(before)


def forget(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def show(rounds: list[dict[str, Any]], cap: int) -> None:
    names = dict.fromkeys(name for turn in rounds for name in turn)
    for name in names:
        turns = [turn[name] for turn in rounds if name in turn]
        rates = [one["tok_s"] for one in turns]
        line = f"{name}: {statistics.median(rates):.2f} tok/s ({min(rates):.2f}-{max(rates):.2f}), {len(rates)} rounds"
        if "peak" in turns[0]:
            peak, group_peak = max(one["peak"] for one in turns), max(one["group_peak"] for one in turns)
            line += (
                f"; predicted {statistics.median(one['predicted'] for one in turns):.2f}, hits "
                f"{statistics.median(one['hits'] for one in turns):.1%}, {turns[0]['slots']} slots, VmHWM "
                f"{peak >> 20} MiB, group {group_peak >> 20} of {cap >> 20} MiB, "
                f"{len({json.dumps(one['ids']) for one in turns})} text"
            )
        print(line)
    ours = next(iter(names))
    for name in [name for name in names if name in MAP]:
        pairs = [turn[ours]["tok_s"] / turn[name]["tok_s"] for turn in rounds if name in turn and ours in turn]
        if pairs:
            print(f"{ours} / {name}: {statistics.median(pairs):.2f}x ({min(pairs):.2f}-{max(pairs):.2f})")


if __name__ == "__main__":
    main()
