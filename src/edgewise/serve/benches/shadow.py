"""`edgewise bench shadow`: per-tensor INT8 on a model with outliers, plain and with shadow outliers on the host.

Paper:  llm.npu (mllm-NPU), arXiv 2407.05858, §3.3
Exact.  It measures an approximate device and changes nothing.
Needs:  a dense GGUF model and two texts; by default the embedded model and modules of the standard library
Cost:   a minute or two of both cores on the embedded model
Status: kept
"""

import copyreg
import heapq
import inspect
import json
import sched
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.serve.hub import locate
from edgewise.serve.measure import perplexity
from edgewise.serve.options import Json, Threads, table

SHARES = (0.0, 0.15, 0.5, 1.0)  # of the weights that keep a shadow; 0: plain per-tensor W8A8


def measure_shadow(
    model: Annotated[str | None, typer.Argument(help="dense GGUF file, or user/repo; none: embedded")] = None,
    text: Annotated[Path | None, typer.Option("--text", "-f", help="text to score [two held-out modules]")] = None,
    calibrate: Annotated[Path | None, typer.Option(help="text to find the scales with [heapq.py]")] = None,
    limit: Annotated[int, typer.Option(min=2, help="tokens of each text")] = 2000,
    factor: Annotated[float, typer.Option(help="how much larger the outliers are; a power of two")] = 64.0,
    chunk: Annotated[int, typer.Option(min=1, help="rows of the accelerator's one shape")] = 256,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Perplexity of a model, of the same function with injected outliers, and of both in emulated per-tensor W8A8.

    Rows: share of the weights whose outliers are computed on the host; 0 is plain W8A8. overflow: values that left the
    int8 range. channels: share of the input channels that ever overflowed, whose float weights the host must hold.
    """
    from edgewise.convert.outliers import inject_outliers
    from edgewise.embedded import embedded_model
    from edgewise.kernels.devices.npu import NpuDevice
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    scored = _text(text, inspect.getsource(sched) + inspect.getsource(copyreg))
    seen = _text(calibrate, inspect.getsource(heapq))

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, times in (("plain", 1.0), ("outliers", factor)):
            file = Path(folder, f"{name}.gguf")
            inject_outliers(path, file, factor=times)
            whole = perplexity(LLM(file, threads=threads, max_num_seqs=1), scored, limit)
            device = NpuDevice(threads, chunk)
            device.profile()  # before the weights are there: it says that nothing is rounded yet
            llm = LLM(file, device=device, prefill_chunk=chunk, max_num_seqs=1)
            perplexity(llm, seen, limit)
            for share in SHARES:
                if sys.stderr.isatty():
                    print(f"{name} model, shadow {share:.0%} ...", file=sys.stderr)
                device.freeze(share)
                measured = perplexity(llm, scored, limit)
                used = [w for w in device.weights if w.shadow]
                rows.append({
                    "model": name, "shadow": share, "perplexity_f32": whole, "perplexity": measured,
                    "loss": measured / whole - 1, "overflow": int(sum(w.overflow.sum() for w in used)),
                    "channels": sum(int((w.overflow > 0).sum()) for w in used)
                    / (sum(len(w.overflow) for w in used) or 1),
                    "padding": device.rows_padded / (device.rows_used + device.rows_padded),
                })  # fmt: skip
            llm.close()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    head = ["model", "shadow", "ppl f32", "ppl W8A8", "loss", "overflow", "channels", "padding"]
    body = [
        [
            str(r["model"]), f"{r['shadow']:.0%}", f"{r['perplexity_f32']:.3f}", f"{r['perplexity']:.3f}",
            f"{r['loss']:+.2%}", str(r["overflow"]), f"{r['channels']:.2%}", f"{r['padding']:.1%}",
        ]
        for r in rows
    ]  # fmt: skip
    print(table([head, *body], set(range(1, 8))))
    print("The accelerator is emulated: accuracy is measured, speed is not.")


def _text(path: Path | None, default: str) -> str:
    if path is None:
        return default
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text: {error}.") from error
