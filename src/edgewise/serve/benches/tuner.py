"""`edgewise bench tuner`: what tuning found in seconds, beside the default and beside a search of everything.

Paper:  nn-JIT.web, arXiv 2309.08978
Exact.  Settings only change speed; nothing is stored.
Needs:  a model, on whose weights it measures; by default the embedded one
Cost:   30 s of tuning, 10 minutes of exhaustive search, a minute of comparing; all cores
Status: kept
"""

import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.assemble import assemble
from edgewise.base import Unsupported
from edgewise.embedded import embedded_model
from edgewise.kernels.tuning import Knobs, Matmul, Tunable
from edgewise.plan.probe import fingerprint, last_cache_bytes
from edgewise.plan.store import Store
from edgewise.plan.tuners import LONGEST, TUNERS, USUAL
from edgewise.plan.tuning import MOST_COLUMNS, KernelTuning
from edgewise.serve.commands.tune import BATCHES, tune_for, work_of
from edgewise.serve.hub import locate
from edgewise.serve.measure import Stepper
from edgewise.serve.options import Json, Threads, table


def measure_tuner(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="of tuning")] = 30.0,
    exhaustive: Annotated[float, typer.Option(min=0.1, help="seconds of the exhaustive search")] = 600.0,
    rounds: Annotated[int, typer.Option(min=1, help="of the last comparison")] = 41,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """For each matmul of the model: the default, what tuning found, and the best of all candidates, timed in turns.

    of best: the best one's time over the tuned one's (1 is as good as the best). gain: the default's time over the
    tuned one's. Where two of them are the same setting they share one time.
    """
    path = embedded_model() if model is None else locate(model)
    parts = assemble(path, threads=threads, max_num_seqs=max(BATCHES))
    if not isinstance(parts.device, Tunable):
        raise Unsupported(f"The device '{parts.device.info.name}' has no kernels to tune.")
    device: Any = parts.device
    for step in work_of(Stepper(parts.engine), parts.context).values():
        step()
    mine = [seen.matmul for seen in device.matmuls()]
    for matmul in mine:
        device.tune(matmul, {})  # whatever was stored: the default is what nobody has measured
    columns = {seen.matmul: min(seen.columns, MOST_COLUMNS[seen.matmul.range]) for seen in device.matmuls()}
    with tempfile.TemporaryDirectory() as folder:
        tuned, tuned_s, meter = _search(device, USUAL, seconds, Path(folder, "a"))
        rounds_each = max(16, int(exhaustive / 5))  # more than there is time for: the time decides
        best, best_s, _ = _search(device, f"{LONGEST}:rounds={min(rounds_each, 96)}", exhaustive, Path(folder, "b"))
        rows = [_compare(meter, m, columns[m], tuned.get(m, {}), best.get(m, {}), rounds) for m in mine]
    report: dict[str, Any] = {
        "model": parts.header.name, "threads": device.info.threads, "table": device.info.isa,
        "tuning_s": tuned_s, "exhaustive_s": best_s, "matmuls": rows,
        "of_best": _mean([row["of_best"] for row in rows]), "least_of_best": min(row["of_best"] for row in rows),
        "gain": _mean([row["gain"] for row in rows]), "least_gain": min(row["gain"] for row in rows),
        "best_gain": _mean([row["best_gain"] for row in rows]), "most_gain": max(row["best_gain"] for row in rows),
    }  # fmt: skip
    print(json.dumps(report, indent=1) if as_json else _say(report))


def _search(device: Any, name: str, seconds: float, folder: Path) -> tuple[dict[Matmul, Knobs], float, KernelTuning]:
    """What a tuner finds in so many seconds, starting from nothing; the seconds it took."""
    store = Store(fingerprint(device.info.threads, device.info.isa), folder)
    tuning = KernelTuning(device, lambda c: TUNERS.build(name, candidates=c), store, cache_bytes=last_cache_bytes())
    tuning.look()
    begin = time.perf_counter()
    tune_for(tuning, seconds)
    spent = time.perf_counter() - begin
    found = {m: task.tuner.best() for m, task in {**tuning.tasks, **tuning.done}.items()}
    tuning.stop()
    for matmul in found:
        device.tune(matmul, {})
    return found, spent, tuning


def _compare(
    meter: KernelTuning, matmul: Matmul, columns: int, tuned: Knobs, best: Knobs, rounds: int
) -> dict[str, Any]:
    settings: list[Knobs] = [{}]
    settings += [knobs for knobs in (tuned, best) if knobs not in settings]
    settings = [knobs for i, knobs in enumerate(settings) if knobs not in settings[:i]]
    times = meter.compare(matmul, columns, settings, rounds) if len(settings) > 1 else [1.0]
    default_s, tuned_s, best_s = (times[settings.index(knobs)] for knobs in ({}, tuned, best))
    return {
        "matmul": matmul.key, "tuned": dict(tuned), "best": dict(best), "default_us": default_s * 1e6,
        "gain": default_s / tuned_s, "best_gain": default_s / best_s, "of_best": best_s / tuned_s,
    }  # fmt: skip


def _mean(values: list[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _say(report: Mapping[str, Any]) -> str:
    head = ["matmul", "gain", "best gain", "of best", "tuned", "best"]
    body = [
        [r["matmul"], f"{r['gain']:.3f}", f"{r['best_gain']:.3f}", f"{r['of_best']:.3f}", _knobs(r["tuned"]),
         _knobs(r["best"])]
        for r in report["matmuls"] if r["tuned"] or r["best"]
    ]  # fmt: skip
    same = len(report["matmuls"]) - len(body)
    lines = [f"{report['model']}, {report['threads']} threads, {report['table']}"]
    if body:
        lines.append(table([head, *body], {1, 2, 3}))
    lines += [
        f"{same} of {len(report['matmuls'])} matmuls: the default is the best found by either",
        f"tuned in {report['tuning_s']:.0f} s: {report['of_best']:.1%} of the best of {report['exhaustive_s']:.0f} s "
        f"(geometric mean; worst {report['least_of_best']:.1%})",
        f"over the default: tuned {report['gain']:.3f}x (worst {report['least_gain']:.3f}x), "
        f"best {report['best_gain']:.3f}x (most {report['most_gain']:.3f}x)",
    ]
    return "\n".join(lines)


def _knobs(knobs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items()) or "-"
