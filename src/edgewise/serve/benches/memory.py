"""`edgewise bench memory`: a model under a memory budget beside baselines, each in a process of its own, interleaved.

Paper:  Eliseev and Mazur 2023, arXiv 2312.17238; HybriMoE, arXiv 2504.05897; TPI-LLM, arXiv 2410.00531
Exact.  It measures only; the texts of all runs are compared.
Needs:  a model on a real disk; a cgroup that may be made (root, version 1) for the cap to be enforced as well as kept
Cost:   a run of the model for each line and pair
Status: kept
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.models.streaming import parse_size
from edgewise.serve.capping import PROMPT, group
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, human, table


def measure_memory(
    model: Annotated[str, typer.Argument(help="folder, GGUF file, or user/repo")],
    ram_budget: Annotated[str, typer.Option("--ram-budget", help="all memory of the process, e.g. 2GiB")],
    members: Annotated[
        str, typer.Option(help="residency+prefetcher pairs, by commas; 'all': everything at hand, without a budget")
    ] = "all,none+none,lru+none,lru+lookahead",
    tokens: Annotated[int, typer.Option("-n", min=2, help="to write")] = 48,
    pairs: Annotated[int, typer.Option(min=1, help="rounds; every line runs once in each")] = 5,
    context: Annotated[int, typer.Option("-c", min=64, help="tokens of the cache")] = 512,
    source: Annotated[str, typer.Option(help="how files are read; slow:bytes_per_s=2e8 is a slow disk")] = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """tok/s predicted and measured, hit rate, bytes read a token, peak memory (VmHWM), whether the text is the same.

    The budget is also the limit of a control group where one can be made; page cache counts there.
    """
    path, limit = locate(model), parse_size(ram_budget)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in members.split(",")}
    with group(limit) as inside:
        for _ in range(pairs):
            for name, runs in found.items():
                where = None if name == "all" else inside
                runs.append(run(path, name, ram_budget, tokens, context, threads, source, where))
    rows = [summary(name, runs) for name, runs in found.items()]
    texts = {json.dumps(one["token_ids"]) for runs in found.values() for one in runs}
    if as_json:
        print(json.dumps({"rows": rows, "one_text": len(texts) == 1, "enforced": inside is not None}, indent=1))
        return
    head = ["stays + guessed", "tok/s", "predicted", "first token s", "hits", "wait ms", "read/token", "peak", "slots"]
    body = [[
        row["name"], f"{row['tok_s']:.1f}", f"{row['predicted_tok_s']:.1f}" if row["predicted_tok_s"] else "",
        f"{row['ttft_s']:.2f}", f"{row['hit_rate']:.1%}" if row["slots"] else "",
        f"{1e3 * row['wait_token_s']:.1f}" if row["slots"] else "",
        human(row["bytes_token"]) if row["slots"] else "", human(row["peak_bytes"]), str(row["slots"] or ""),
    ] for row in rows]  # fmt: skip
    print(table([head, *body], set(range(1, 9))))
    same = "the same text in all runs" if len(texts) == 1 else f"{len(texts)} DIFFERENT texts: please report it"
    cap = "enforced by a control group" if inside is not None else "kept, not enforced (no control group could be made)"
    print(f"{same}; budget {human(limit)} {cap}; medians of {pairs}")


def run(path: Path, name: str, budget: str, tokens: int, context: int, threads: int | None, source: str,
        inside: Path | None) -> dict[str, Any]:  # fmt: skip
    """One process; what `edgewise run --json` says."""
    words = [sys.executable, "-m", "edgewise", "run", str(path), PROMPT, "--raw", "--temp", "0", "--ignore-eos",
             "-n", str(tokens), "-c", str(context), "--json"]  # fmt: skip
    if name != "all":
        stays, _, guess = name.partition("+")
        words += ["--ram-budget", budget, "--residency", stays, "--prefetch", guess or "none",
                  "--source", source]  # fmt: skip
    if threads is not None:
        words += ["-t", str(threads)]
    if inside is not None:
        words = ["sh", "-c", f'echo $$ > {inside}/cgroup.procs; exec "$@"', "sh", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "EDGEWISE_DEBUG": ""})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise BadInput(f"'{name}' did not finish (exit {done.returncode}): {last}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians."""
    def median(key: str, of: str = "") -> float:
        return float(statistics.median((one.get(of, {}) if of else one).get(key, 0) for one in runs))

    count = runs[0]["prompt_tokens"] + runs[0]["completion_tokens"]
    return {
        "name": name, "tok_s": median("tok_s"), "ttft_s": median("ttft_s"),
        "peak_bytes": max(one.get("memory", one).get("peak_bytes", one["peak_rss_bytes"]) for one in runs),
        "predicted_tok_s": median("predicted_tok_s", "memory"), "hit_rate": median("hit_rate", "memory"),
        "wait_token_s": median("io_wait_s", "memory") / count,
        "bytes_token": median("bytes_read", "memory") / count, "slots": int(median("slots", "memory")),
    }  # fmt: skip
