"""`edgewise bench flash`: neurons from disk beside naive reload and half-resident, each in a process of its own.

Paper:  Alizadeh et al., LLM in a flash, arXiv 2312.11514
Exact.  It measures only; the texts of all runs are compared with the resident one's.
Needs:  a model laid out by `convert --layout neurons`, on a real disk
Cost:   a run of the model for each line and pair
Status: kept
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, SamplingParams
from edgewise.models.neuron_stream import PART_BYTES
from edgewise.serve.capping import PROMPT, group
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Neurons, Threads, human, table
from edgewise.weights.residency import FOR_NEURONS

# What is computed, who stays, whether about as much as fits stays for ever, whether rows are read one by one.
LINES: dict[str, tuple[str, str, bool, bool]] = {
    "naive": ("all", "none", False, False),
    "half": ("all", "none", True, False),
    "window": ("", FOR_NEURONS, False, False),
    "unbundled": ("", FOR_NEURONS, False, True),
}
SLOW = 4  # lines that read most of the model at each token write so many fewer
WARM = 16  # tokens before the clock starts


def measure_flash(
    model: Annotated[str, typer.Argument(help="a folder made by convert --layout neurons")],
    ram_budget: Annotated[str, typer.Option("--ram-budget", help="all memory of the process, e.g. 2GiB")],
    tokens: Annotated[int, typer.Option("-n", min=4, help="to write while the clock runs")] = 32,
    pairs: Annotated[int, typer.Option(min=1, help="rounds; every line runs once in each")] = 5,
    window: Annotated[int, typer.Option(min=0, help="tokens after which a neuron leaves at once; 0: when need be")] = 0,
    neurons: Neurons = "",
    steady: Annotated[int, typer.Option(help="also a run of so many tokens: its first hundred beside its last")] = 0,
    lines: Annotated[str, typer.Option(help="by commas")] = ",".join(LINES),
    threads: Threads = None,
    as_json: Json = False,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Bytes and reads a token, time a token, peak memory, whether the text is the resident run's. Ratios at the end."""
    path = locate(model)
    if one:
        print(json.dumps(run_one(path, one, ram_budget, tokens, window, neurons, threads)))
        return
    asked = [name for name in lines.split(",") if name]
    if unknown := [name for name in asked if name not in LINES]:
        raise BadInput(f"There is no line '{unknown[0]}'. Known: {', '.join(LINES)}.")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    more = ["-n", str(tokens), "--window", str(window), *(["--neurons", neurons] if neurons else []),
            *(["-t", str(threads)] if threads else [])]  # fmt: skip
    resident = spawn(path, "resident", ram_budget, more, None)["token_ids"]
    with group(parsed(ram_budget)) as inside:
        for _ in range(pairs):
            for name, runs in found.items():
                runs.append(spawn(path, name, ram_budget, more, inside))
        long = spawn(path, "window", ram_budget, [*more, "-n", str(steady)], inside) if steady else None
    rows = {name: summary(runs) for name, runs in found.items()}
    same = all(resident[: len(run["token_ids"])] == run["token_ids"][: len(resident)]
               for runs in found.values() for run in runs)  # fmt: skip
    ratios = compared(found, rows)
    if long is not None:
        ratios["last hundred / first hundred, time"] = long["last_s"] / long["first_s"]
    if as_json:
        print(json.dumps({"rows": rows, "ratios": ratios, "one_text": same, "enforced": inside is not None}, indent=1))
        return
    head = ["line", "ms/token", "read/token", "reads/token", "neurons", "books", "peak", "slots"]
    body = [[
        name, f"{1e3 * row['s_token']:.0f}", human(int(row["bytes_token"])), f"{row['reads_token']:.0f}",
        f"{row['asked']:.1%}", f"{row['books']:.1%}", human(int(row["peak_bytes"])), f"{row['share']:.0%}",
    ] for name, row in rows.items()]  # fmt: skip
    print(table([head, *body], set(range(1, 8))))
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3f}")
    print("the resident run's text in all runs" if same else "NOT the resident run's text: please report it")
    cap = "enforced by a control group" if inside is not None else "kept, not enforced (no control group could be made)"
    print(f"budget {ram_budget} {cap}; medians of {pairs}, lines in turn")


def parsed(size: str) -> int:
    from edgewise.models.streaming import parse_size

    return parse_size(size)


def spawn(path: Path, name: str, budget: str, more: list[str], inside: Path | None) -> dict[str, Any]:
    words = [sys.executable, "-m", "edgewise", "bench", "flash", str(path), "--ram-budget", budget, "--one", name]
    words += more
    if inside is not None and name != "resident":
        words = ["sh", "-c", f'echo $$ > {inside}/cgroup.procs; exec "$@"', "sh", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise BadInput(f"'{name}' did not finish (exit {done.returncode}): {last}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_one(
    path: Path, name: str, budget: str, tokens: int, window: int, neurons: str, threads: int | None
) -> dict[str, Any]:
    """One line in this process."""
    from edgewise.base.limits import peak_resident_bytes
    from edgewise.serve.llm import LLM

    if name == "resident":  # all neurons, or, where they are predicted, those predicted: what stays changes nothing
        picks, stays, kept, apart, limit = neurons or "all", FOR_NEURONS, False, False, None
    else:
        picks, stays, kept, apart = LINES[name]
        limit = budget
        picks = picks or neurons
        stays = f"{stays}:window={window}" if window and stays == FOR_NEURONS else stays
    llm = LLM(path, threads=threads, ctx_size=None, max_num_seqs=1, ram_budget=limit, residency=stays, neurons=picks)
    stream = llm.parts.neurons
    if stream is None:
        raise BadInput(f"{path} is not laid out by neurons; `edgewise convert --layout neurons` does it.")
    store = stream.running
    part = PART_BYTES // store.slots.nbytes
    if kept or apart:
        stream.renew(residency=stays, stay=max(0.0, (store.slots.count - 2 * part) / store.total) if kept else 0.0,
                     apart=apart)  # fmt: skip
        store = stream.running
    count = max(4, tokens // SLOW) if name in ("naive", "half") else tokens
    warm = 2 if name in ("naive", "half") else WARM
    ids: list[int] = []
    stamps: list[float] = []
    marks: list[tuple[int, int, float, int]] = []
    params = SamplingParams(max_tokens=warm + count, temperature=0.0, ignore_eos=True)
    for chunk in llm.stream(PROMPT, params):
        new = list(chunk.token_ids)
        ids += new
        for _ in new:
            stamps.append(time.perf_counter())
            counts = store.counts
            marks.append((counts.bytes_read, counts.reads, counts.books_s, counts.asked))
    if len(ids) < warm + count:
        raise BadInput(f"only {len(ids)} of {warm + count} tokens were written")
    spent = stamps[-1] - stamps[warm - 1]
    first, last = marks[warm - 1], marks[-1]
    hundred = min(100, count // 2)
    return {
        "name": name, "token_ids": ids, "s_token": spent / count, "bytes_token": (last[0] - first[0]) / count,
        "reads_token": (last[1] - first[1]) / count, "books": (last[2] - first[2]) / spent,
        "asked": (last[3] - first[3]) / count / store.total, "peak_bytes": peak_resident_bytes(),
        "share": store.slots.count / store.total, "neuron_bytes": stream.neuron_bytes,
        "first_s": (stamps[warm - 1 + hundred] - stamps[warm - 1]) / hundred,
        "last_s": (stamps[-1] - stamps[-1 - hundred]) / hundred,
    }  # fmt: skip


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians; of memory the most."""
    names = ("s_token", "bytes_token", "reads_token", "books", "asked", "share", "neuron_bytes")
    found = {name: float(statistics.median(run[name] for run in runs)) for name in names}
    return {**found, "peak_bytes": float(max(run["peak_bytes"] for run in runs))}


def compared(found: dict[str, list[dict[str, Any]]], rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ratios: of times the median over pairs, of counts that of the medians."""
    ratios = {}
    ours = found.get("window", [])
    for name, words in (("naive", "naive reload"), ("half", "half-resident"), ("unbundled", "unbundled")):
        if ours and name in found:
            times = [a["s_token"] / b["s_token"] for a, b in zip(ours, found[name], strict=True)]
            ratios[f"time / {words}"] = float(statistics.median(times))
    if ours and "naive" in found:
        ratios["bytes a token / naive reload"] = rows["window"]["bytes_token"] / rows["naive"]["bytes_token"]
    if ours and "unbundled" in found:
        ratios["reads a token / unbundled"] = rows["window"]["reads_token"] / max(1.0, rows["unbundled"]["reads_token"])
    return ratios
