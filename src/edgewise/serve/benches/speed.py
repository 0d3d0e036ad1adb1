"""`edgewise bench MODEL`: prefill and decode speed, beside the bandwidth this machine had in the same minute.

Paper:  none (llama-bench's conventions)
Exact.  It changes nothing; it prints a hash of the logits.
Needs:  a model
Cost:   a few seconds of all cores
Status: kept
"""

import json
import statistics
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.serve.hub import locate
from edgewise.serve.measure import CHUNK, Stepper, Timed, main_format, step_bytes
from edgewise.serve.options import CacheType, Float8, Json, Threads, peak_rss_bytes, table
from edgewise.serve.probe import read_bandwidth
from edgewise.weights import open_checkpoint


def measure_speed(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    prompt: Annotated[int, typer.Option("--n-prompt", "-p", min=0, help="tokens of the prefill test; 0 skips")] = 512,
    decode: Annotated[int, typer.Option("--n-gen", "-n", min=0, help="steps of the decode test; 0 skips")] = 128,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, help="sequences decoded together")] = 1,
    threads: Threads = None,
    runs: Annotated[int, typer.Option("--repetitions", "-r", min=1, help="measured runs after one warm-up")] = 5,
    kv_cache_dtype: CacheType = None,
    device: Annotated[str, typer.Option(help="where to compute; see `edgewise members`")] = "cpu",
    fp8: Float8 = "auto",
    as_json: Json = False,
) -> None:
    """Measures prefill (pp) and decode (tg) on random tokens, without sampling, as llama-bench does.

    gb_s is weight bytes read per second; roof_share is that over what as many threads can read from memory, measured
    right before and after (0.93 is 93 %; a model that fits the cache can pass 1). Equal logits_hash: equal bits.
    """
    if not prompt and not decode:
        raise BadInput("-p 0 and -n 0 leave nothing to measure.")
    from edgewise.embedded import embedded_model
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    context = max(prompt, decode)
    llm = LLM(
        path, threads=threads, ctx_size=context, kv_cache_dtype=kv_cache_dtype or "auto", device=device,
        max_num_seqs=batch, prefill_chunk=CHUNK, fp8=fp8,
    )  # fmt: skip
    llm.settle()
    used = llm.parts.device.info.threads
    stepper = Stepper(llm.parts.engine)
    checkpoint = open_checkpoint(path)
    label = {"model": llm.name, "format": main_format(checkpoint), "threads": used}
    before = read_bandwidth(used)
    measured = []
    if prompt:
        measured.append((f"pp{prompt}", 1, min(prompt, CHUNK), measure(lambda: stepper.prefill(prompt), runs)))
    if decode:
        timed = measure(lambda: stepper.decode(decode, batch), runs)
        measured.append((f"tg{decode}", batch, batch, timed))
    roof = (before + read_bandwidth(used)) / 2
    rows = [row(test, label, size, step_bytes(checkpoint, width), timed, roof) for test, size, width, timed in measured]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    head = ["test", "threads", "batch", "tok/s", "min", "max", "GB/s", "of roof", "logits"]
    body = [
        [
            str(r["test"]), str(r["threads"]), str(r["batch"]), f"{r['tok_s']:.2f}", f"{r['tok_s_min']:.2f}",
            f"{r['tok_s_max']:.2f}", f"{r['gb_s']:.2f}", f"{r['roof_share']:.0%}", r["logits_hash"],
        ]
        for r in rows
    ]  # fmt: skip
    print(f"{label['model']}, {label['format']}, {llm.parts.device.info.isa}, {runs} runs, medians")
    print(table([head, *body], set(range(1, 8))))
    print(f"{used} threads read {before:.1f} GB/s before and {2 * roof - before:.1f} GB/s after (the roof is the mean)")


def measure(once: Callable[[], Timed], runs: int) -> list[Timed]:
    """One warm-up, then `runs` passes. All of them must give the same bits."""
    once()
    timed = [once() for _ in range(runs)]
    if len({one.logits_hash for one in timed}) != 1:
        warnings.warn("Runs over the same tokens gave different logits: a bug, please report it.", stacklevel=2)
    return timed


def row(
    test: str, label: dict[str, Any], batch: int, nbytes: int, timed: list[Timed], roof_gb_s: float
) -> dict[str, Any]:
    """One object of --json; its keys are a contract."""
    gb_s = nbytes * statistics.median(one.steps_s for one in timed) / 1e9
    return {
        "test": test,
        "model": label["model"],
        "format": label["format"],
        "threads": label["threads"],
        "batch": batch,
        "runs": len(timed),
        "tok_s": statistics.median(one.tok_s for one in timed),
        "tok_s_min": min(one.tok_s for one in timed),
        "tok_s_max": max(one.tok_s for one in timed),
        "gb_s": gb_s,
        "roof_share": gb_s / roof_gb_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "logits_hash": timed[-1].logits_hash,
    }
