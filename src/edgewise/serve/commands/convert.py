"""`edgewise convert`: a model as GGUF or as a Hugging Face directory, in another format of numbers."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, Incompatible
from edgewise.convert.auto import Row
from edgewise.convert.choosing import convert_auto, ladder_of
from edgewise.convert.converting import convert, target_of
from edgewise.convert.neuron_layout import convert_neurons
from edgewise.convert.streaming import convert_streamed
from edgewise.convert.writing import Written
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, human, read_text, table
from edgewise.serve.progress import bar

Out = Annotated[Path, typer.Option("--out", "-o", "--outfile", help="a .gguf file, or a folder for safetensors")]
To = Annotated[str | None, typer.Option("--to", help="gguf or safetensors [default: by the name of the output]")]
Pure = Annotated[bool, typer.Option("--pure", help="every matrix in the same format, the head too")]
Calibrate = Annotated[
    Path | None,
    typer.Option("--calibrate", help="a UTF-8 text to learn from what weights meet [gptq, awq: Python's own library]"),
]
MaxLoss = Annotated[
    str | None, typer.Option("--max-loss", help="with -q auto: perplexity that may be lost on the held-out text [1%]")
]
HeldOut = Annotated[
    Path | None,
    typer.Option("--held-out", help="with -q auto: the text to measure on [the end of --calibrate, or the library]"),
]
Layout = Annotated[
    str | None, typer.Option(
        "--layout",
        help="streamed: a folder whose experts or layers are read fastest by run; neurons: one whose feed-forward "
        "rows are read one by one",
    ),
]
LAYOUTS = {"streamed": convert_streamed, "neurons": convert_neurons}
Force = Annotated[bool, typer.Option("--force", "-f", help="replace an output that exists")]


def command(
    model: Annotated[str, typer.Argument(help="a folder, a GGUF file, or user/repo[:file.gguf] from the cache")],
    out: Out,
    to: To = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            "-q",
            "--outtype",
            help="f32, f16, bf16, fp8_e4m3, fp8_e5m2, q8_0, q6_k, q5_k_m, q5_k_s, q4_k_m, q4_k_s, q3_k_m, q3_k_s, "
            "q2_k, q4_0, q4_1, q5_0, q5_1; for folders int1, ternary, int2, int3, int4, int8, with :group=32 to 128; "
            "auto, auto:q3_k_s,q4_k_s,... or, for folders, auto:int2,int4,...: the fewest bits within --max-loss "
            "[default: the formats that are stored]",
        ),
    ] = None,
    quantiser: Annotated[
        str | None,
        typer.Option(
            "--quantiser",
            help="how weights are narrowed: rtn, rtn:clip=True, hqq, awq, gptq, or none [rtn; with -q auto: "
            "gptq:act_order=True]",
        ),
    ] = None,
    calibrate: Calibrate = None,
    max_loss: MaxLoss = None,
    held_out: HeldOut = None,
    pure: Pure = False,
    layout: Layout = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Writes a model in another file format, another number format, or both. The output is whole or absent.

    An interrupted conversion keeps its finished tensors beside the output; the same command goes on from them.
    """
    if layout is not None:
        if layout not in LAYOUTS:
            raise BadInput(f"There is no layout '{layout}'. Known: {', '.join(LAYOUTS)}.")
        if any((to, quant, quantiser, calibrate, max_loss, held_out, pure)):
            raise Incompatible(f"--layout {layout} keeps all formats: convert first, then lay the result out.")
        with bar(f"{out.name}") as watch:
            written = LAYOUTS[layout](locate(model), out, force=force, watch=watch)
        report(written, as_json)
        return
    words = None if calibrate is None else read_text(calibrate)
    ladder = None if quant is None else ladder_of(quant, target_of(out, to))
    if ladder is None:
        if max_loss is not None or held_out is not None:
            raise BadInput("--max-loss and --held-out belong to --quant auto; add it, or leave them out.")
        with bar(f"{out.name}") as watch:
            written = convert(
                locate(model), out, to=to, quant=quant, quantiser=quantiser or "rtn", pure=pure, force=force,
                watch=watch, calibrate=words,
            )  # fmt: skip
        report(written, as_json)
        return
    if pure:
        raise Incompatible("--pure wants one format everywhere and --quant auto several; drop one of them.")
    held = None if held_out is None else read_text(held_out)
    with bar(f"{out.name}") as watch:
        written, rows, taken = convert_auto(
            locate(model), out, ladder, max_loss=share("1%" if max_loss is None else max_loss), quantiser=quantiser,
            calibrate=words, held_out=held, to=to, force=force, watch=watch, tell=tell,
        )  # fmt: skip
    if not as_json:
        print(recipes(rows, taken))
    report(written, as_json, recipes=[asdict(row) for row in rows], taken=taken.recipe)


def share(text: str) -> float:
    """"1%" or "0.01" as a number."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise BadInput(f"--max-loss is '{text}'; write a percentage such as 1%, or a share such as 0.01.") from None


def tell(words: str) -> None:
    """One line of progress, when a person is watching."""
    if sys.stderr.isatty():
        print(words, file=sys.stderr)


def recipes(rows: Sequence[Row], taken: Row) -> str:
    """Every recipe that was measured, the one that was taken marked."""
    head = ["recipe", "bits/weight", "bytes", "perplexity", "loss", ""]
    body = [
        [r.recipe, f"{r.bits:.2f}", f"{r.nbytes:,}", f"{r.perplexity:.4f}", f"{r.loss:+.2%}", "taken" * (r == taken)]
        for r in rows
    ]
    return table([head, *body], set(range(1, 5)))


def report(written: Written, as_json: bool, **more: Any) -> None:
    """What was written; notices go to standard error."""
    for notice in written.notices:
        print(f"edgewise: note: {notice}", file=sys.stderr)
    if as_json:
        facts = {"path": str(written.path), "bytes": written.nbytes, "weights": dict(written.formats)}
        print(json.dumps({**facts, "notices": written.notices, **more}, indent=1))
        return
    total = sum(written.formats.values())
    shares = {fmt: 100 * count / total for fmt, count in written.formats.items()}
    mix = ", ".join(f"{fmt} {share:.1f} %" for fmt, share in shares.items() if share >= 0.05)
    print(f"{written.path}: {human(written.nbytes)}, {total:,} weights ({mix})")
