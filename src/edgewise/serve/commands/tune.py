"""`edgewise tune …`: measure on this machine, and remember. `kernels` tunes matmuls on a model's own weights."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from edgewise.assemble import assemble
from edgewise.base import Unsupported
from edgewise.embedded import embedded_model
from edgewise.kernels import lookup
from edgewise.kernels.choices import range_name, range_of
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.kernels.tuning import Knobs, Matmul, Tunable
from edgewise.plan.choices import Choices
from edgewise.plan.lookups import measure
from edgewise.plan.probe import fingerprint, last_cache_bytes
from edgewise.plan.store import Store
from edgewise.plan.tuners import LONGEST, TUNERS, USUAL
from edgewise.plan.tuning import KernelTuning, apply_stored
from edgewise.serve.hub import locate
from edgewise.serve.measure import Stepper, Timed
from edgewise.serve.options import Json, Threads, table
from edgewise.serve.progress import counting

command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

SLICE_S = 0.2  # of measuring between two looks at the clock
ASLEEP_S = 1.0  # a slice that took longer was interrupted
LONG_S = 600.0  # of an exhaustive search
BATCHES = (1, 2, 4, 8)  # sequences decoded together: one for each range of columns up to a tile
PROMPTS = (32, 128)  # tokens of a prompt: the two ranges beyond
BURSTS, REST_S = 3, 0.15  # of a closing duel, each after a rest in which threads fall asleep and clocks go down
BURST_S, PAIRS = 0.3, (5, 61)  # of whole steps: about so long, at least and at most so many
WON, KEPT = 1.02, 0.98  # what the median burst must gain over the default, and what none may fall below

Step = Callable[[], Timed]


@command.callback()
def _group() -> None:
    """Measure what is fastest on this machine, and remember it. No result changes by a bit."""


@command.command()
def kernels(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    seconds: Annotated[float | None, typer.Option(min=1e-3, help="to spend on measuring [30; exhaustive: 600]")] = None,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help="all candidates equally often")] = False,
    lookups: Annotated[bool, typer.Option("--lookup/--no-lookup", help="measure where table lookup pays")] = True,
    again: Annotated[bool, typer.Option("--again", help="forget what was measured before")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Tunes the matmuls that this model needs, for 1 to 8 sequences and for prompts, on its own weights.

    A setting is admitted only if its result equals the standard's in every bit. What wins is stored for this CPU and
    used whenever a model is loaded; a second run has nothing to do. Where table lookup beats dot products (1 to 3 bits)
    is measured too, for all models and once: some 20 seconds more. At the end whole steps are timed with and without,
    in turns and in three bursts: `predicted` is what the single matmuls promised, `measured` what the steps gained.
    Where they gain less than 2 %, or lose 2 % in any of the bursts, the default stays.
    """
    parts = assemble(embedded_model() if model is None else locate(model), threads=threads, max_num_seqs=max(BATCHES))
    if not isinstance(parts.device, Tunable):
        raise Unsupported(f"The device '{parts.device.info.name}' has no kernels to tune.")
    device: Any = parts.device
    store = Store(fingerprint(device.info.threads, device.info.isa))
    complaint = store.complaint
    if again:
        store.forget()
    stepper = Stepper(parts.engine)
    steps = work_of(stepper, parts.context)
    for step in steps.values():
        step()  # so that the device knows what it is asked for
    name = LONGEST if exhaustive else USUAL
    tuning = KernelTuning(device, lambda c: TUNERS.build(name, candidates=c), store, cache_bytes=last_cache_bytes())
    mine = [seen.matmul for seen in device.matmuls()]
    before = sum(store.get("kernels", m.key) is not None for m in mine)
    waiting = tuning.look()
    limit = seconds or (LONG_S if exhaustive else 30.0)
    spent = tune_for(tuning, limit) if waiting else 0.0
    entries = {m: entry for m in mine if (entry := store.get("kernels", m.key)) is not None}
    report: dict[str, Any] = {
        "model": parts.header.name, "machine": store.of.model, "threads": store.of.threads, "table": store.of.table,
        "store": str(store.path), "tuned_before": before, "tuned_now": len(tuning.done),
        "unfinished": len(tuning.tasks), "seconds": spent, "pairs": sum(t.pairs for t in tuning.done.values()),
        "refused": sum(t.refused for t in tuning.done.values()),
        "matmuls": [{"matmul": m.key, **entry} for m, entry in entries.items()], "steps": [], "note": complaint,
    }  # fmt: skip
    tuning.stop()
    if lookups:
        report["lookup"] = measure_lookups(device, store)
    if tuning.done:
        report["steps"] = settle(device, store, entries, steps)
    apply_stored(device, store)
    report["note"] = " ".join(filter(None, (complaint, store.complaint if store.complaint != complaint else "")))
    print(json.dumps(report, indent=1) if as_json else _say(report))


def work_of(stepper: Stepper, context: int) -> dict[int, Step]:
    """Range of columns → a step that works in it."""
    tokens = min(6, context)
    steps: dict[int, Step] = {}
    for batch in BATCHES:
        steps[range_of(batch)] = lambda batch=batch: stepper.decode(tokens, batch)  # type: ignore[misc]
    for prompt in PROMPTS:
        length = min(prompt, context)
        steps[range_of(length)] = lambda length=length: stepper.prefill(length)  # type: ignore[misc]
    return steps


def tune_for(tuning: KernelTuning, seconds: float) -> float:
    """Measures until all is tuned or the time is over; a bar for who watches. The seconds spent: time in which the
    process or the machine slept does not count."""
    left = seconds
    with counting("tuning kernels", tuning.left()) as show:
        while left > 0:
            begin = time.perf_counter()
            done = tuning.spend(min(SLICE_S, left))
            left -= min(time.perf_counter() - begin, ASLEEP_S)
            if done:
                break
            show(tuning.left())
    return seconds - left


def measure_lookups(device: Any, store: Store) -> dict[str, Any]:
    """Format → the least rows from which it looks up, for each range of columns; known ones are not measured again."""
    if not isinstance(device, CpuDevice):
        return {}
    choices, found = Choices(store), dict[str, Any]()
    with counting("measuring table lookup", len(lookup.FORMATS)) as show:
        for at, fmt in enumerate(lookup.FORMATS):
            found |= {name: list(least) for name, least in measure(choices, device, (fmt,)).items()}
            show(len(lookup.FORMATS) - at - 1)
    return found


def settle(
    device: Any, store: Store, entries: Mapping[Matmul, Mapping[str, Any]], steps: Mapping[int, Step]
) -> list[Any]:
    """The closing duel: real steps with and without what was found. A range that does not gain by it goes back."""
    rows = []
    for at, step in steps.items():
        found = {m: entry["knobs"] for m, entry in entries.items() if m.range == at and entry["knobs"]}
        standard_us = sum(entry["default_us"] for m, entry in entries.items() if m.range == at)
        tuned_us = sum(entry["default_us"] / entry["gain"] for m, entry in entries.items() if m.range == at)
        row = {"columns": range_name(at), "changed": len(found), "predicted": 1.0, "measured": 1.0, "kept": True}
        if found:
            gains = [statistics.median(burst) for burst in race(device, found, step)]
            kept = holds(gains)
            row |= {"predicted": standard_us / tuned_us, "measured": statistics.median(gains), "kept": kept}
            if not kept:
                give_back(store, entries, found)
        rows.append(row)
    return rows


def give_back(store: Store, entries: Mapping[Matmul, Mapping[str, Any]], found: Iterable[Matmul]) -> None:
    store.put("kernels", {m.key: {**entries[m], "knobs": {}, "gain": 1.0} for m in found})


def race(device: Any, found: Mapping[Matmul, Knobs], step: Step) -> list[list[float]]:
    """Gains of a real step with these settings over the standard ones, in pairs, by burst; leaves the standard."""
    bursts: list[list[float]] = []
    for _ in range(BURSTS):
        time.sleep(REST_S)
        least, most = PAIRS
        gains: list[float] = []
        begin = time.perf_counter()
        while len(gains) < least or (len(gains) < most and time.perf_counter() - begin < BURST_S):
            taken = {}
            for tuned in (len(gains) % 2 == 0, len(gains) % 2 == 1):
                for matmul, knobs in found.items():
                    device.tune(matmul, knobs if tuned else {})
                taken[tuned] = step().seconds
            gains.append(taken[False] / taken[True])
        bursts.append(gains)
    for matmul in found:
        device.tune(matmul, {})
    return bursts


def holds(gains: Sequence[float]) -> bool:
    """Whether the median gains of several bursts speak for a setting: over all, and none clearly against it."""
    return statistics.median(gains) >= WON and min(gains) >= KEPT


def _say(report: Mapping[str, Any]) -> str:
    lines = [f"{report['model']} on {report['machine']}, {report['threads']} threads, {report['table']}"]
    if not report["tuned_now"] and not report["unfinished"]:
        lines.append(f"nothing to tune: all {report['tuned_before']} matmuls were measured before")
    else:
        lines.append(
            f"{report['tuned_now']} matmuls tuned in {report['seconds']:.1f} s ({report['pairs']} pairs), "
            f"{report['tuned_before']} were known, {report['unfinished']} need another run; "
            f"{report['refused']} settings refused for a differing bit"
        )
    changed = [row for row in report["matmuls"] if row["knobs"]]
    if changed:
        head = ["matmul", "default us", "gain", "setting"]
        body = [[r["matmul"], f"{r['default_us']:.1f}", f"{r['gain']:.3f}", _knobs(r["knobs"])] for r in changed]
        lines.append(table([head, *body], {1, 2}))
    same = len(report["matmuls"]) - len(changed)
    if same:
        lines.append(f"{same} matmuls keep the default: no candidate beat it by 2 %")
    looking = sum(any(n is not None for n in least) for least in report.get("lookup", {}).values())
    if "lookup" in report:
        lines.append(f"table lookup: {looking} of {len(report['lookup'])} formats look up from some number of rows on")
    if report["steps"]:
        head = ["columns", "changed", "predicted", "measured", ""]
        body = [
            [r["columns"], str(r["changed"]), f"{r['predicted']:.3f}", f"{r['measured']:.3f}",
             "" if r["kept"] else "given back"]
            for r in report["steps"]
        ]  # fmt: skip
        lines.append(table([head, *body], {1, 2, 3}))
    lines.append(f"stored in {report['store']}")
    if report["note"]:
        lines.append(f"note: {report['note']}")
    return "\n".join(lines)


def _knobs(knobs: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items())
