"""`edgewise bench lookup`: table lookup beside dot products for 1 to 4 bits, and how often bit patterns repeat.

Paper:  T-MAC, arXiv 2407.00088; SAIL, arXiv 2509.25853 (the software half: lookup for many columns, pattern redundancy)
Exact.  Both kernels give the same bits; it changes nothing, but with --keep what this machine does from now on.
Needs:  the compiled extension; the redundancy needs a model
Cost:   half a minute of one core, some seconds of all
Status: kept
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from edgewise.base import BadInput
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, table
from edgewise.serve.probe import read_bandwidth

WIDTHS = ("int1", "ternary", "int2", "int3", "int4")
PLANES = 8  # of an int8 activation
ROOF_BYTES, STREAMED = 64 << 20, 13  # of a probe and thread; turns of what is read from memory
PATTERN = 8  # neighbouring activations whose bits of a plane are one pattern


def measure_lookup(
    widths: Annotated[str, typer.Option(help="formats without their groups")] = ",".join(WIDTHS),
    groups: Annotated[str, typer.Option(help="weights that share a step: 32, 64, 128")] = "128",
    columns: Annotated[str, typer.Option("--columns", "-n", help="numbers of columns (tokens)")] = "1,4,16,32",
    shapes: Annotated[str, typer.Option(help="rows x columns of cache-resident weights")] = "1024x2048,2048x2048",
    stream: Annotated[int, typer.Option(min=0, help="MiB of weights read from memory; 0: skip that part")] = 192,
    model: Annotated[str | None, typer.Option(help="whose patterns are counted [embedded]; 'none': skip")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="measure where lookup pays, and use it from now on")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Times of both kernels in turns, one thread, weights in the cache; then weights from memory with all threads.

    ratio: dot products' time over lookup's. chosen: what runs by itself; its loss is its time over the better one's.
    one by one: the time of as many lookups of one column over that of all columns together. nmse: beside floats.
    """
    from edgewise.kernels import lookup
    from edgewise.kernels.devices.cpu import CpuDevice
    from edgewise.plan.choices import Choices
    from edgewise.plan.probe import fingerprint
    from edgewise.plan.store import Store

    names = [f"{w}:group={g}" for w in widths.split(",") for g in groups.split(",")]
    counts, sizes = [_number(n) for n in columns.split(",")], [_shape(s) for s in shapes.split(",")]
    if wrong := sorted(set(widths.split(",")) - {*WIDTHS}):
        raise BadInput(f"There is no lookup kernel for {', '.join(wrong)}. There are some for {', '.join(WIDTHS)}.")
    one = CpuDevice(1)
    result: dict[str, Any] = {"isa": one.isa}
    known = Choices(Store(fingerprint(one.threads, one.isa))).known
    if keep:
        result["least_rows"] = _keep(CpuDevice(threads))
    result["cached"] = []
    for fmt in names:
        kept = lookup.least_rows(known, fmt) or lookup.usual(one.isa, fmt)
        for size in sizes:
            result["cached"] += _cached(one, fmt, *size, counts, kept)
    result["four_over_one"] = _four_over_one(result["cached"])
    if stream:
        many = CpuDevice(threads)
        measured = Choices(Store(fingerprint(many.threads, many.isa))).known
        result["stream"] = _stream(many, names, stream << 20, counts, measured)
    if model != "none":
        result["redundancy"] = _redundancy(model)
    print(json.dumps(result, indent=1) if as_json else _text(result))


def _keep(device: Any) -> dict[str, Any]:
    from edgewise.plan.choices import Choices
    from edgewise.plan.lookups import measure
    from edgewise.plan.probe import fingerprint
    from edgewise.plan.store import Store

    store = Store(fingerprint(device.threads, device.isa))
    found = measure(Choices(store), device)
    if store.complaint:
        raise BadInput(store.complaint)
    return {fmt: list(least) for fmt, least in found.items()}


def _cached(
    device: Any, fmt: str, rows: int, cols: int, counts: Sequence[int], kept: Sequence[int | None]
) -> list[dict[str, Any]]:
    """kept: the least rows from which this machine looks up, for each range of columns."""
    from edgewise.kernels import formats, lookup
    from edgewise.kernels.choices import range_of
    from edgewise.plan.lookups import ALWAYS, NEVER, Duel

    measured: list[dict[str, Any]] = []
    for n in counts:
        duel = Duel(device, fmt, rows, cols, n)
        alone = device.upload(duel.floats[:1])

        def each(duel: Duel = duel, alone: Any = alone, n: int = n) -> None:
            device.set_lookup(fmt, ALWAYS)
            for _ in range(n):
                device.linear(alone, duel.weight)

        seconds = turns({"dot": duel.dot, "lookup": duel.lookup, "one by one": each})
        want = duel.floats.astype(np.float64) @ formats.dequantize(fmt, duel.stored, rows * cols).reshape(rows, cols).T
        error = (np.array(device.download(duel.lookup())) - want) ** 2
        least = kept[range_of(n)]
        chosen = lookup.LOOKUP if least is not None and rows >= least else lookup.DOT
        measured.append({
            "format": fmt, "rows": rows, "cols": cols, "columns": n, "dot_us": seconds["dot"] * 1e6,
            "lookup_us": seconds["lookup"] * 1e6, "ratio": seconds["dot"] / seconds["lookup"],
            "one_by_one": seconds["one by one"] / seconds["lookup"], "chosen": chosen,
            "loss": seconds[chosen] / min(seconds["dot"], seconds["lookup"]) - 1,
            "nmse": float(error.sum() / (want**2).sum()),
        })  # fmt: skip
    device.set_lookup(fmt, NEVER)
    return measured


def turns(runs: dict[str, Callable[[], object]], rounds: int = 9, least: float = 1.5e-3) -> dict[str, float]:
    """Median seconds of each, measured in turns; what is quick runs several times a turn."""
    times = {}
    for name, run in runs.items():
        run()
        begin = time.perf_counter()
        run()
        times[name] = max(1, int(least / (time.perf_counter() - begin)))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            for _ in range(times[name]):
                run()
            taken[name].append((time.perf_counter() - begin) / times[name])
    return {name: statistics.median(all_) for name, all_ in taken.items()}


def _four_over_one(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times of lookup at 4 bits over 1 bit, where both were measured."""
    by = {(r["format"], r["rows"], r["cols"], r["columns"]): r["lookup_us"] for r in rows}
    return [
        {"group": int(fmt.partition("=")[2]), "rows": m, "cols": k, "columns": n,
         "ratio": us / by["int1" + fmt.removeprefix("int4"), m, k, n]}
        for (fmt, m, k, n), us in by.items()
        if fmt.startswith("int4") and ("int1" + fmt.removeprefix("int4"), m, k, n) in by
    ]  # fmt: skip


def _stream(device: Any, names: Sequence[str], flight: int, counts: Sequence[int], known: Any) -> list[dict[str, Any]]:
    """Weights that are larger than the caches together, visited in turn: shares of the read bandwidth, which is probed
    before and after each of the turns, and what the device loses that chooses by itself."""
    from edgewise.kernels import formats, lookup
    from edgewise.plan.lookups import ALWAYS, NEVER

    rows, cols = 8192, 2048
    found = []
    for fmt in names:
        size = formats.nbytes(fmt, rows * cols)
        stored = np.random.default_rng(0).integers(0, 60, size, dtype=np.uint8)  # no NaN among the steps
        weights = [
            device.load((rows, cols), fmt, lambda at, n, stored=stored: stored[at : at + n])
            for _ in range(flight // size + 1)
        ]
        kept = lookup.least_rows(known, fmt) or lookup.usual(device.isa, fmt)
        total = sum(w.nbytes for w in weights)
        for columns in counts:
            x = device.upload(np.random.default_rng(1).normal(size=(columns, cols)).astype(np.float32))

            def run(least: Any, streams: bool, fmt: str = fmt, weights: Any = weights, x: Any = x) -> float:
                device._set_streams(streams)  # false: both kernels run as they are told
                device.set_lookup(fmt, least)
                begin = time.perf_counter()
                for w in weights:
                    device.linear(x, w)
                return time.perf_counter() - begin

            runs = {"dot": (NEVER, False), "lookup": (ALWAYS, False), "chosen": (kept, True)}
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            roofs = [read_bandwidth(device.threads, ROOF_BYTES, 3)]
            run(NEVER, False)
            for turn in range(STREAMED):
                order = list(runs)[turn % 3 :] + list(runs)[: turn % 3]
                for name in order:
                    seconds[name].append(run(*runs[name]))
                roofs.append(read_bandwidth(device.threads, ROOF_BYTES, 3))
            roof = [(a + b) / 2 for a, b in pairwise(roofs)]
            shares = {
                name: statistics.median(total / s / 1e9 / r for s, r in zip(taken, roof, strict=True))
                for name, taken in seconds.items()
            }
            loss = max(
                statistics.median(mine / one for mine, one in zip(seconds["chosen"], seconds[name], strict=True)) - 1
                for name in ("dot", "lookup")
            )
            found.append({"format": fmt, "columns": columns, "threads": device.threads,
                          "roof_gb_s": statistics.median(roofs), "loss": loss}
                         | {f"{name}_gb_s": total / statistics.median(s) / 1e9 for name, s in seconds.items()}
                         | {f"{name}_share": share for name, share in shares.items()})  # fmt: skip
        device.set_lookup(fmt, NEVER)
    return found


def _redundancy(model: str | None) -> dict[str, Any]:
    """How often a pattern repeats: of int8 activations bit by bit, and of 2-bit weights; beside a shuffled control."""
    import inspect
    import sched

    from edgewise.embedded import embedded_model
    from edgewise.kernels import formats
    from edgewise.kernels.devices.reference import ReferenceDevice, ReferenceWeight
    from edgewise.serve.llm import LLM

    rng = np.random.default_rng(0)
    seen: list[npt.NDArray[np.float32]] = []
    matrices: dict[int, npt.NDArray[np.float32]] = {}

    class Listening(ReferenceDevice):
        def linear(self, x: Any, w: ReferenceWeight, bias: Any = None, add: Any = None) -> Any:
            seen.append(np.array(x[:64]))
            matrices[id(w)] = w.values
            return super().linear(x, w, bias, add)

    llm = LLM(embedded_model() if model is None else locate(model), device=Listening(), max_num_seqs=1)
    tokens = llm.tokenize(inspect.getsource(sched))[:64]
    for _ in llm.logits_chunks(tokens):
        pass
    planes = [activation_planes(x) for x in seen]
    found: dict[str, Any] = {"activations": {}, "pattern": PATTERN}
    for name, first, end in (("high planes", 4, 7), ("all planes", 0, 7)):
        counts = np.array([repeats(p, first, end) for p in planes]).sum(0)
        control = np.array([repeats(shuffled(p, rng), first, end) for p in planes]).sum(0)
        found["activations"][name] = {"model": counts[0] / counts[1], "shuffled": control[0] / control[1]}
    same = np.zeros((2, 2))
    for values in matrices.values():
        if values.shape[1] % 64 == 0 and len(values) >= 16:
            codes = formats.find("int2").codes(  # type: ignore[attr-defined]
                formats.quantize("int2", values).view(formats.find("int2").layout)
            ).reshape(len(values), -1)
            same += [weight_repeats(codes), weight_repeats(rng.permuted(codes.reshape(-1)).reshape(codes.shape))]
    found["weights"] = {"model": same[0, 0] / same[0, 1], "shuffled": same[1, 0] / same[1, 1]}
    llm.close()
    return found


def activation_planes(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(tokens, depth) floats → bits of their int8 values, one scale a token: (planes, tokens, depth), lowest first."""
    peak = np.abs(x).max(-1, keepdims=True)
    values = np.rint(x * (127 / np.where(peak > 0, peak, 1))).astype(np.int8).view(np.uint8)
    return np.stack([values >> plane & 1 for plane in range(PLANES)])


def repeats(planes: npt.NDArray[np.uint8], first: int, end: int) -> tuple[int, int]:
    """How many patterns of planes [first, end) equal the next higher plane's at the same place, and of how many."""
    whole = planes.shape[-1] // PATTERN * PATTERN
    same = (planes[first:end, :, :whole] == planes[first + 1 : end + 1, :, :whole]).reshape(
        end - first, planes.shape[1], -1, PATTERN).all(-1)  # fmt: skip
    return int(same.sum()), same.size


def shuffled(planes: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Each plane keeps how many bits it has set, and nothing else."""
    return np.stack([rng.permutation(plane.reshape(-1)).reshape(plane.shape) for plane in planes])


def weight_repeats(codes: npt.NDArray[np.int32], rows: int = 16) -> tuple[int, int]:
    """Patterns of four 2-bit codes that occurred before among the same 16 rows at the same place, and of how many."""
    whole = codes.shape[1] // 4 * 4
    part = codes[: len(codes) // rows * rows, :whole].reshape(-1, rows, whole // 4, 4)
    patterns = np.sort((part << np.array([0, 2, 4, 6])).sum(-1), axis=1)
    return int((patterns[:, 1:] == patterns[:, :-1]).sum()), patterns.size


def _text(result: dict[str, Any]) -> str:
    lines = [f"isa {result['isa']}, one thread, weights in the cache"]
    head = ["format", "shape", "N", "dot us", "lookup us", "ratio", "one by one", "chosen", "loss", "nmse"]
    lines.append(table([head, *(
        [r["format"], f"{r['rows']}x{r['cols']}", str(r["columns"]), f"{r['dot_us']:.1f}", f"{r['lookup_us']:.1f}",
         f"{r['ratio']:.2f}", f"{r['one_by_one']:.2f}", r["chosen"], f"{r['loss']:.1%}", f"{r['nmse']:.1e}"]
        for r in result["cached"]
    )], {2, 3, 4, 5, 6, 8, 9}))  # fmt: skip
    for r in result["four_over_one"]:
        where = f"group {r['group']} {r['rows']}x{r['cols']} N {r['columns']}"
        lines.append(f"lookup, 4 bits over 1: {where}: {r['ratio']:.2f}")
    for r in result.get("stream", ()):
        lines.append(
            f"from memory, {r['threads']} threads, {r['format']} N {r['columns']}: dot {r['dot_gb_s']:.1f} GB/s "
            f"({r['dot_share']:.0%} of {r['roof_gb_s']:.1f}), lookup {r['lookup_gb_s']:.1f} GB/s "
            f"({r['lookup_share']:.0%}), chosen {r['chosen_gb_s']:.1f} GB/s ({r['chosen_share']:.0%}, "
            f"loss {r['loss']:.1%})"
        )
    if "redundancy" in result:
        found = result["redundancy"]
        for name, r in found["activations"].items():
            lines.append(f"activations, {name}: {r['model']:.1%} of the patterns repeat; shuffled {r['shuffled']:.1%}")
        r = found["weights"]
        lines.append(f"2-bit weights, 16 rows: {r['model']:.1%} of the patterns repeat; shuffled {r['shuffled']:.1%}")
    for fmt, least in result.get("least_rows", {}).items():
        lines.append(f"kept: {fmt} looks up from {', '.join('-' if n is None else str(n) for n in least)} rows")
    return "\n".join(lines)


def _number(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise BadInput(f"--columns takes numbers from 1 on, separated by commas, not '{text}'.")
    return int(text)


def _shape(text: str) -> tuple[int, int]:
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols) and int(cols) % 128 == 0):
        raise BadInput(f"--shapes takes ROWSxCOLUMNS, columns a multiple of 128, separated by commas, not '{text}'.")
    return int(rows), int(cols)
