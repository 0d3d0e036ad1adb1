"""`edgewise bench tuner`: what tuning found in seconds, beside the default and beside a search of everything.

Paper:  nn-JIT.web, arXiv 2309.08978
Exact.  Settings only change speed; nothing is stored but what --state names.
Needs:  a model, on whose weights it measures; by default the embedded one
Cost:   30 s of tuning, 10 minutes of exhaustive search, a minute of comparing; all cores
Status: kept
"""

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.assemble import assemble
from edgewise.base import BadInput, Unsupported
from edgewise.embedded import embedded_model
from edgewise.kernels.choices import range_name
from edgewise.kernels.tuning import Knobs, Matmul, Tunable
from edgewise.plan.candidates import candidates, everything
from edgewise.plan.probe import fingerprint, last_cache_bytes
from edgewise.plan.store import Store
from edgewise.plan.tuners import LONGEST, TUNERS, USUAL
from edgewise.plan.tuning import MOST_COLUMNS, KernelTuning
from edgewise.serve.commands.tune import BATCHES, Step, give_back, holds, race, tune_for, work_of
from edgewise.serve.hub import locate
from edgewise.serve.measure import Stepper
from edgewise.serve.options import Json, Threads, table

FINALS, DUEL = 6, 33  # of an exhaustive search: how many of the best meet the default again, and in how many pairs
LONGEST_S = 600.0  # of one matmul, however slow the machine has become since its rounds were counted
CLOSE = 1.03  # a default that the best does not beat by more is as good as tuned
PASSES = 3  # over all matmuls in the last comparison: what lasts for a moment only does not decide it

PARTS = ("seconds", "closing", "rows", "walks")  # that a state keeps

Choose = Callable[[Matmul, Knobs, int], Sequence[Knobs]]


def measure_tuner(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="of tuning")] = 30.0,
    exhaustive: Annotated[float, typer.Option(min=0.1, help="seconds of the exhaustive search")] = 600.0,
    rounds: Annotated[int, typer.Option(min=1, help="of the last comparison")] = 41,
    state: Annotated[Path | None, typer.Option(help="a folder that keeps what is done, to go on from later")] = None,
    stop_after: Annotated[float | None, typer.Option(min=0.1, help="seconds, about; the same command goes on")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """For each matmul of the model: the default, what tuning found, and the best of all settings, timed in turns.

    of best: the best one's time over the tuned one's (1 is as good as the best). gain: the default's time over the
    tuned one's. Both are medians of pairs from three passes over all matmuls. Where two of them are the same setting
    they share one time. Tuning may choose among 64 settings at most, and what it found has to win a closing duel of
    whole steps; the exhaustive search chooses among all combinations of a finer grid, its time shared evenly by the
    matmuls, without such a duel. At the end whole steps are timed with the tuned and with the best settings, each
    against the default, in three bursts with rests between.
    """
    if stop_after is not None and state is None:
        raise BadInput("--stop-after needs --state FOLDER: without it nothing is left to go on from.")
    end = math.inf if stop_after is None else time.perf_counter() + stop_after
    path = embedded_model() if model is None else locate(model)
    parts = assemble(path, threads=threads, max_num_seqs=max(BATCHES))
    if not isinstance(parts.device, Tunable):
        raise Unsupported(f"The device '{parts.device.info.name}' has no kernels to tune.")
    device: Any = parts.device
    steps = work_of(Stepper(parts.engine), parts.context)
    for step in steps.values():
        step()
    for seen in device.matmuls():
        device.tune(seen.matmul, {})  # whatever was stored: the default is what nobody has measured
    columns = {seen.matmul: min(seen.columns, MOST_COLUMNS[seen.matmul.range]) for seen in device.matmuls()}
    with nullcontext(str(state)) if state is not None else tempfile.TemporaryDirectory() as folder:
        work = Race(device, columns, Path(folder), f"{parts.header.name}, {seconds:g} s, {exhaustive:g} s", end)
        work.tune(seconds)
        work.settle(steps)
        work.search(exhaustive)
        work.compare(rounds)
        work.walk(steps)
        report = {
            "model": parts.header.name, "threads": device.info.threads, "table": device.info.isa, **work.report(),
        }  # fmt: skip
    print(json.dumps(report, indent=1) if as_json else _say(report))


@dataclass
class Race:
    """Parts of a comparison; each remembers in `folder` what it has done. end: when to stop."""

    device: Any
    columns: Mapping[Matmul, int]
    folder: Path
    what: str  # tells these figures from those of another command
    end: float
    seconds: dict[str, float] = field(default_factory=dict)  # spent by each of the two searches
    closing: dict[str, list[float]] = field(default_factory=dict)  # range → gains of the closing duel, by burst
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # a matmul's key → its comparison
    walks: dict[str, dict[str, Any]] = field(default_factory=dict)  # range → gains of whole steps

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.device.info.threads, self.device.info.isa)
        self.stores = {name: Store(self.fingerprint, self.folder / name) for name in ("tuned", "best")}
        self.seconds = {"tuned": 0.0, "best": 0.0}
        self.path = self.folder / f"{self.fingerprint.name}.json"
        if self.path.exists():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["what"] != self.what:
                raise BadInput(f"{self.folder} keeps figures of another run ({kept['what']}); name another folder.")
            for part in PARTS:
                setattr(self, part, kept[part])

    def tune(self, seconds: float) -> None:
        """What a user's `edgewise tune kernels` would find in so many seconds."""
        tuning = self._tuning("tuned", USUAL, candidates)
        if tuning.look() and self.seconds["tuned"] < seconds:
            self._spend("tuned", tuning, min(seconds - self.seconds["tuned"], self.end - time.perf_counter()))

    def settle(self, steps: Mapping[int, Step]) -> None:
        """What was tuned has to win in whole steps, as after `edgewise tune kernels`; else the default stays."""
        for at, step in steps.items():
            if range_name(at) in self.closing:
                continue
            if time.perf_counter() > self.end:
                return
            entries = self._found("tuned", at)
            found = {matmul: entry["knobs"] for matmul, entry in entries.items() if entry["knobs"]}
            gains = [statistics.median(burst) for burst in race(self.device, found, step)] if found else []
            if gains and not holds(gains):
                give_back(self.stores["tuned"], entries, found)
            self.closing[range_name(at)] = gains
            self._keep()

    def search(self, seconds: float) -> None:
        """Every matmul gets an equal share of what is left of the time, and as many rounds as fit."""
        left = [m for m in self.columns if self.stores["best"].get("kernels", m.key) is None]
        meter = self._tuning("best", LONGEST, everything)
        for at, matmul in enumerate(left):
            settings = everything(matmul, self.device.standard(matmul), self.device.info.threads)
            if time.perf_counter() > self.end:
                return
            if not settings or self.seconds["best"] >= seconds:
                continue
            share = (seconds - self.seconds["best"]) / (len(left) - at)
            pairs = share / min(self._pair_s(meter, matmul) for _ in range(3))
            duel = max(3, min(DUEL, int(pairs / 2 / FINALS)))
            rounds = max(1, int((pairs - FINALS * duel) / len(settings)))
            name = f"{LONGEST}:rounds={rounds},finals={FINALS},duel={duel}"
            self._spend("best", self._tuning("best", name, _only(matmul)), LONGEST_S)  # cut off, it would be lost

    def compare(self, rounds: int) -> None:
        """The default, the tuned and the best setting of each matmul, in turns, in several passes over all of them."""
        meter = self._tuning("best", LONGEST, everything)
        for turn in range(1, PASSES + 1):
            for matmul, columns in self.columns.items():
                row = self.rows.setdefault(matmul.key, {"passes": 0, "default_s": [], "tuned_s": [], "best_s": []})
                if row["passes"] >= turn:
                    continue
                if time.perf_counter() > self.end:
                    return
                knobs = {name: entry["knobs"] if entry else {} for name, entry in self._entries(matmul).items()}
                named: dict[str, Knobs] = {"default": {}, **knobs}
                settings: list[Knobs] = []
                for one in named.values():
                    if one not in settings:
                        settings.append(one)
                times = meter.compare(matmul, columns, settings, -(-rounds // PASSES))
                for name, one in named.items():
                    row[f"{name}_s"] += times[settings.index(one)]
                row["passes"] = turn
                self._keep()

    def walk(self, steps: Mapping[int, Step]) -> None:
        """Whole steps with the tuned and with the best settings, each against the default."""
        for at, step in steps.items():
            if range_name(at) in self.walks:
                continue
            if time.perf_counter() > self.end:
                return
            walked: dict[str, Any] = {"columns": range_name(at)}
            for kind in self.stores:
                found = {m: entry["knobs"] for m, entry in self._found(kind, at).items() if entry["knobs"]}
                gains = [statistics.median(burst) for burst in race(self.device, found, step)] if found else [1.0]
                walked |= {kind: statistics.median(gains), f"{kind}_least": min(gains), f"{kind}_changed": len(found)}
            self.walks[range_name(at)] = walked
            self._keep()

    def _entries(self, matmul: Matmul) -> dict[str, dict[str, Any] | None]:
        return {name: store.get("kernels", matmul.key) for name, store in self.stores.items()}

    def _found(self, kind: str, at: int) -> dict[Matmul, dict[str, Any]]:
        found = {m: self.stores[kind].get("kernels", m.key) for m in self.columns if m.range == at}
        return {matmul: entry for matmul, entry in found.items() if entry}

    def _row(self, matmul: Matmul) -> dict[str, Any]:
        """The figures of one matmul: medians of pairs."""
        kept, entries = self.rows[matmul.key], self._entries(matmul)
        default, tuned, best = (kept[f"{name}_s"] for name in ("default", "tuned", "best"))
        return {
            "matmul": matmul.key, **{name: entry["knobs"] if entry else {} for name, entry in entries.items()},
            "default_us": statistics.median(default) * 1e6, "gain": _gain(default, tuned),
            "best_gain": _gain(default, best), "of_best": _gain(best, tuned), "settings": entries["best"]["candidates"]
            if entries["best"] else 0, **{f"{name}_done": entry is not None for name, entry in entries.items()},
        }  # fmt: skip

    def report(self) -> dict[str, Any]:
        """Figures over the matmuls that were searched to the end; the others are counted."""
        rows = [self._row(m) for m in self.columns if self.rows.get(m.key, {"passes": 0})["passes"] == PASSES]
        done = [row for row in rows if row["best_done"]]
        behind = [row["matmul"] for row in done if row["best_gain"] > CLOSE]
        figures: dict[str, Any] = {}
        if done:
            figures = {
                "of_best": _mean([row["of_best"] for row in done]), "least_of_best": min(r["of_best"] for r in done),
                "gain": _mean([row["gain"] for row in done]), "least_gain": min(row["gain"] for row in rows),
                "best_gain": _mean([row["best_gain"] for row in done]), "most_gain": max(r["best_gain"] for r in done),
            }  # fmt: skip
        return {
            "tuning_s": self.seconds["tuned"], "exhaustive_s": self.seconds["best"],
            "left": len(self.columns) - len(rows), "closing": self.closing, "steps": list(self.walks.values()),
            "not_searched": [row["matmul"] for row in rows if not row["best_done"]],
            "not_tuned": [row["matmul"] for row in rows if not row["tuned_done"]],
            "behind": behind, **figures, "matmuls": rows,
        }  # fmt: skip

    def _tuning(self, kind: str, name: str, choose: Choose) -> KernelTuning:
        return KernelTuning(
            self.device, lambda c: TUNERS.build(name, candidates=c), self.stores[kind], cache_bytes=last_cache_bytes(),
            choose=choose,
        )  # fmt: skip

    def _pair_s(self, meter: KernelTuning, matmul: Matmul) -> float:
        """What a pair of samples costs, eviction included."""
        begin = time.perf_counter()
        meter.compare(matmul, self.columns[matmul], [{}, {}], 3)
        return (time.perf_counter() - begin) / 3

    def _spend(self, kind: str, tuning: KernelTuning, seconds: float) -> None:
        """Searches; what was found is in the store, and the device has its defaults again."""
        tuning.look()
        self.seconds[kind] += tune_for(tuning, seconds)
        tuning.stop()
        for matmul in self.columns:
            self.device.tune(matmul, {})
        self._keep()

    def _keep(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        kept = {"what": self.what, **{part: getattr(self, part) for part in PARTS}}
        fresh.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        os.replace(fresh, self.path)


def _only(wanted: Matmul) -> Choose:
    return lambda matmul, standard, threads: everything(matmul, standard, threads) if matmul == wanted else []


def _gain(slow: list[float], fast: list[float]) -> float:
    """How many times as fast, in the median of pairs."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _mean(values: list[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _say(report: Mapping[str, Any]) -> str:
    head = ["matmul", "default us", "gain", "best gain", "of best", "tuned", "best"]
    body = [
        [r["matmul"], f"{r['default_us']:.1f}", f"{r['gain']:.3f}", f"{r['best_gain']:.3f}", f"{r['of_best']:.3f}",
         _knobs(r["tuned"]), _knobs(r["best"])]
        for r in report["matmuls"] if r["tuned"] or r["best"]
    ]  # fmt: skip
    lines = [f"{report['model']}, {report['threads']} threads, {report['table']}"]
    if body:
        lines.append(table([head, *body], {1, 2, 3, 4}))
    count = len(report["matmuls"])
    lines.append(f"{count - len(body)} of {count} matmuls: the default is the best found by either")
    for words, names in (("not searched to the end", "not_searched"), ("not tuned to the end", "not_tuned")):
        if report[names]:
            lines.append(f"{words}: {', '.join(report[names])}")
    if "of_best" in report:
        lines += [
            f"tuned in {report['tuning_s']:.0f} s: {report['of_best']:.1%} of the best of "
            f"{report['exhaustive_s']:.0f} s (geometric mean; worst {report['least_of_best']:.1%})",
            f"over the default: tuned {report['gain']:.3f}x (worst {report['least_gain']:.3f}x), "
            f"best {report['best_gain']:.3f}x (most {report['most_gain']:.3f}x)",
            f"the default is within {CLOSE - 1:.0%} of the best in {count - len(report['behind'])} of {count}"
            + (f"; not in {', '.join(report['behind'])}" if report["behind"] else ": tuning is not needed here"),
        ]
    back = [name for name, gains in report["closing"].items() if gains and not holds(gains)]
    if back:
        lines.append(f"closing duel in whole steps: for {', '.join(back)} columns the default stays")
    if report["steps"]:
        head = ["columns", "whole steps: tuned", "worst burst", "best", "worst burst"]
        lines.append(table([head, *(
            [r["columns"], *(f"{r[name]:.3f}" for name in ("tuned", "tuned_least", "best", "best_least"))]
            for r in report["steps"]
        )], {1, 2, 3, 4}))  # fmt: skip
    if report["left"]:
        lines.append(f"{report['left']} matmuls are left; the same command goes on")
    return "\n".join(lines)


def _knobs(knobs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items()) or "-"
