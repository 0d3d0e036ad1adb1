"""`edgewise bench fp8-int8`: INT8 beside both FP8s: noise on four distributions, perplexity, speed for 1 to 512 rows.

Paper:  FP8 versus INT8, arXiv 2303.17951
Exact.  It measures and, unless told to --store, changes nothing.
Needs:  a GGUF model for the perplexities; by default the embedded one and modules of the standard library
Cost:   about a minute of both cores
Status: kept
"""

import copyreg
import inspect
import json
import sched
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.kernels import formats
from edgewise.kernels.api import Device, Floats, Ints, Place, ReadAt, Weight
from edgewise.serve.hub import locate
from edgewise.serve.measure import perplexity
from edgewise.serve.options import Json, Threads, table

SAMPLES = 200_000
GROUP = "int8:group=32"
E4M3, E5M2 = formats.FLOAT8
COLUMNS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CLIPS = 2.0 ** -(np.arange(0, 80) / 8)  # of the largest sample
# What the paper and its critics lead to expect of INT8 less E4M3, in dB: at least, or at most.
SIGNS = (
    ("normal", "int8", 6.0), ("laplace", "int8", 0.0), ("student t3", "int8", -5.0), ("outliers", "int8", -5.0),
    ("outliers", GROUP, 3.0),
)  # fmt: skip


def measure_fp8_int8(
    model: Annotated[str | None, typer.Argument(help="GGUF file, or user/repo; none: embedded")] = None,
    text: Annotated[Path | None, typer.Option("--text", "-f", help="text to score [two held-out modules]")] = None,
    limit: Annotated[int, typer.Option(min=2, help="tokens of the text")] = 4000,
    rows: Annotated[int, typer.Option(min=16, help="rows of the weight whose speed is measured")] = 4096,
    cols: Annotated[int, typer.Option(min=128, help="its columns")] = 4096,
    seconds: Annotated[float, typer.Option(min=0.0, help="for each number of rows of activations; 0 skips")] = 1.5,
    store: Annotated[bool, typer.Option("--store", help="make the faster one what --fp8 auto means here")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Signal to quantisation noise with the best clip, perplexities, and time of FP8-as-BF16 beside INT8.

    int8 is one scale for a whole tensor, int8:group=32 our own format. Perplexity: the linear weights of the layers in
    blocks of 128 x 128 (FP8) or groups of 32 (INT8), computed by the kernels that run such checkpoints; the model's
    weights are first taken off the grid they were stored on, or INT8 would have nothing to lose.
    """
    noise = [signal_to_noise(name, sample) for name, sample in samples(SAMPLES)]
    signs = [sign(noise, *expected) for expected in SIGNS]
    losses = perplexities(model, text, limit, threads)
    speed, best = speeds(threads, rows, cols, seconds, store) if seconds > 0 else ([], None)
    result = {"sqnr_db": noise, "signs": signs, "perplexity": losses, "speed": speed, "chosen": best}
    if as_json:
        print(json.dumps(result, indent=1))
        return
    kinds = ["int8", GROUP, E4M3, E5M2]
    print("Signal to quantisation noise, dB, best clip of each")
    print(table([["samples", *kinds], *[[r["samples"], *(f"{r[k]:.1f}" for k in kinds)] for r in noise]], {1, 2, 3, 4}))
    for s in signs:
        word = ">=" if s["bound_db"] >= 0 else "<="
        print(f"{s['samples']}: {s['format']} - E4M3 = {s['db']:+.1f} dB, expected {word} {s['bound_db']:+g}: "
              f"{'as expected' if s['holds'] else 'NOT as expected'}")
    print()
    print(table([["weights", "perplexity", "loss"],
                 *[[r["weights"], f"{r['perplexity']:.4f}", f"{r['loss']:+.3%}"] for r in losses]], {1, 2}))
    if not speed:
        return
    print(f"\n{rows} x {cols}, microseconds (medians of interleaved runs); chosen: {best}")
    head = ["rows", "fp8 as bf16", "int8", "faster", "chosen is slower by"]
    body = [[str(r["columns"]), f"{r['bf16_us']:.0f}", f"{r['int8_us']:.0f}", r["faster"], f"{r['behind']:.1%}"]
            for r in speed]  # fmt: skip
    print(table([head, *body], {0, 1, 2, 4}))


def samples(count: int) -> list[tuple[str, Floats]]:
    random = np.random.default_rng(0)
    outliers = random.standard_normal(count)
    outliers[random.choice(count, count // 1000, replace=False)] *= 100
    drawn = (("normal", random.standard_normal(count)), ("laplace", random.laplace(size=count)),
             ("student t3", random.standard_t(3, count)), ("outliers", outliers))  # fmt: skip
    return [(name, np.asarray(x, np.float32)) for name, x in drawn]


def signal_to_noise(name: str, x: Floats) -> dict[str, Any]:
    """dB for one scale and best clip; for INT8 in groups as it is stored."""

    def db(back: Floats) -> float:
        error = np.square(x.astype(np.float64) - back).sum()
        return float(10 * np.log10(np.square(x.astype(np.float64)).sum() / error))

    peak = float(np.abs(x).max())
    found: dict[str, Any] = {"samples": name, "int8": -np.inf, E4M3: -np.inf, E5M2: -np.inf}
    for clip in CLIPS * peak:
        step = np.float32(clip / 127)
        found["int8"] = max(found["int8"], db(np.clip(np.rint(x / step), -127, 127) * step))
        for fmt in formats.FLOAT8:
            step = np.float32(clip / formats.find(fmt).largest)  # type: ignore[attr-defined]
            found[fmt] = max(found[fmt], db(formats.dequantize(fmt, formats.quantize(fmt, x / step), x.size) * step))
    found[GROUP] = db(formats.dequantize(GROUP, formats.quantize(GROUP, x), x.size))
    return found


def sign(noise: Sequence[dict[str, Any]], name: str, fmt: str, bound_db: float) -> dict[str, Any]:
    row = next(r for r in noise if r["samples"] == name)
    db = row[fmt] - row[E4M3]
    holds = db >= bound_db if bound_db >= 0 else db <= bound_db
    return {"samples": name, "format": fmt, "db": db, "bound_db": bound_db, "holds": bool(holds)}


def narrowing(load: Callable[..., Weight], fmt: str, into: str | None, vocab: int) -> Callable[..., Weight]:
    """A device's `load` that keeps a model's linear weights in another format. fmt: "" (as they are), INT8 in groups,
    or an FP8 in blocks of 128 x 128, which `into` may narrow once more. vocab: rows of matrices to leave alone."""

    def narrowed(
        shape: Sequence[int], given: str, read: ReadAt, rows: Ints | None = None, place: Place | None = None, **_: Any
    ) -> Weight:
        if not fmt or shape[0] in (1, vocab):
            return load(shape, given, read, rows, place)
        if fmt not in formats.FLOAT8:
            return load(shape, given, read, rows, into=fmt)
        values = formats.dequantize(given, read(0, formats.nbytes(given, prod(shape))), prod(shape))
        codes, scales = formats.in_blocks(fmt, values.reshape(tuple(shape)))
        flat, spans = codes.reshape(-1), formats.spread(scales, int(shape[0]))
        return load(shape, fmt, lambda at, n: flat[at : at + n], rows, scales=spans, into=into)

    return narrowed


def perplexities(model: str | None, text: Path | None, limit: int, threads: int | None) -> list[dict[str, Any]]:
    from edgewise.convert.off_grid import spread_weights
    from edgewise.embedded import embedded_model
    from edgewise.kernels.devices.cpu import CpuDevice
    from edgewise.serve.llm import LLM
    from edgewise.serve.options import read_text

    words = inspect.getsource(sched) + inspect.getsource(copyreg) if text is None else read_text(text)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "spread.gguf")
        spread_weights(embedded_model() if model is None else locate(model), file)
        vocab = 0
        for name, fmt, into in (
            ("F32", "", None), (GROUP, GROUP, None), (E4M3, E4M3, None), (E5M2, E5M2, None),
            (f"{E4M3}, then {GROUP}", E4M3, GROUP),
        ):  # fmt: skip
            if sys.stderr.isatty():
                print(f"{name} ...", file=sys.stderr)
            device = CpuDevice(threads)
            device.load = narrowing(device.load, fmt, into, vocab)  # type: ignore[method-assign]
            with LLM(file, device=device, max_num_seqs=1) as llm:
                vocab = llm.parts.spec.vocab
                now = perplexity(llm, words, limit)
            base = found[0]["perplexity"] if found else now
            found.append({"weights": name, "perplexity": now, "loss": now / base - 1})
    # what the conversion at load costs an FP8 checkpoint
    found[-1]["loss_to_fp8"] = found[-1]["perplexity"] / found[2]["perplexity"] - 1
    return found


def speeds(
    threads: int | None, rows: int, cols: int, seconds: float, store: bool
) -> tuple[list[dict[str, Any]], str]:
    """Time by rows of activations of as many weights as the last cache does not hold, so that one row reads memory."""
    from edgewise.kernels.devices.cpu import CpuDevice
    from edgewise.plan.float8 import best_of, store_float8
    from edgewise.plan.probe import last_cache_bytes

    device = CpuDevice(threads)
    random = np.random.default_rng(0)
    values = random.standard_normal((rows, cols)).astype(np.float32)
    codes, scales = formats.in_blocks(E4M3, values)
    flat, spans = codes.reshape(-1), formats.spread(scales, rows)
    copies = max(2, -(-2 * last_cache_bytes() // codes.size))
    held = {
        name: [
            device.load((rows, cols), E4M3, lambda at, n: flat[at : at + n], scales=spans, into=into)
            for _ in range(copies)
        ]
        for name, into in (("bf16", None), ("int8", GROUP))
    }
    taken: dict[str, dict[int, float]] = {name: {} for name in held}
    for columns in COLUMNS:
        x = device.upload(random.standard_normal((columns, cols)).astype(np.float32))
        runs = {name: _cycled(device, x, weights) for name, weights in held.items()}
        for name, median in _medians(runs, seconds).items():
            taken[name][columns] = median
    best = best_of(taken["bf16"], taken["int8"])
    if store and (complaint := store_float8(device, best, taken["bf16"], taken["int8"])):
        print(complaint, file=sys.stderr)
    found = []
    for columns in COLUMNS:
        bf16, int8 = taken["bf16"][columns], taken["int8"][columns]
        found.append({
            "columns": columns, "bf16_us": bf16 * 1e6, "int8_us": int8 * 1e6,
            "faster": "bf16" if bf16 < int8 else "int8", "behind": taken[best][columns] / min(bf16, int8) - 1,
        })  # fmt: skip
    return found, best


def _cycled(device: Device, x: Any, weights: Sequence[Weight]) -> Callable[[], float]:
    """Seconds of one matmul, with the weights in turn."""
    turn = 0

    def run() -> float:
        nonlocal turn
        turn = (turn + 1) % len(weights)
        begin = time.perf_counter()
        device.linear(x, weights[turn])
        return time.perf_counter() - begin

    return run


def _medians(runs: dict[str, Callable[[], float]], seconds: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            times[name].append(run())
    return {name: statistics.median(each) for name, each in times.items()}
