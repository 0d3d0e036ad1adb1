"""`edgewise convert`: a model as GGUF or as a Hugging Face directory, in another format of numbers."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgewise.convert.converting import convert
from edgewise.convert.writing import Written
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, human, read_text
from edgewise.serve.progress import bar

Out = Annotated[Path, typer.Option("--out", "-o", "--outfile", help="a .gguf file, or a folder for safetensors")]
To = Annotated[str | None, typer.Option("--to", help="gguf or safetensors [default: by the name of the output]")]
Pure = Annotated[bool, typer.Option("--pure", help="every matrix in the same format, the head too")]
Calibrate = Annotated[
    Path | None,
    typer.Option("--calibrate", help="a UTF-8 text to learn from what weights meet [gptq, awq: Python's own library]"),
]
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
            help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q4_k_m, q4_k_s, q3_k_m, q3_k_s, q2_k, q4_0, q4_1, q5_0, "
            "q5_1 [default: the formats that are stored]",
        ),
    ] = None,
    quantiser: Annotated[
        str,
        typer.Option("--quantiser", help="how weights are narrowed: rtn, rtn:clip=True, hqq, awq, gptq, or none"),
    ] = "rtn",
    calibrate: Calibrate = None,
    pure: Pure = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Writes a model in another file format, another number format, or both. The output is whole or absent.

    An interrupted conversion keeps its finished tensors beside the output; the same command goes on from them.
    """
    words = None if calibrate is None else read_text(calibrate)
    with bar(f"{out.name}") as watch:
        written = convert(
            locate(model), out, to=to, quant=quant, quantiser=quantiser, pure=pure, force=force, watch=watch,
            calibrate=words,
        )  # fmt: skip
    report(written, as_json)


def report(written: Written, as_json: bool) -> None:
    """What was written; notices go to standard error."""
    for notice in written.notices:
        print(f"edgewise: note: {notice}", file=sys.stderr)
    if as_json:
        facts = {"path": str(written.path), "bytes": written.nbytes, "weights": dict(written.formats)}
        print(json.dumps({**facts, "notices": written.notices}, indent=1))
        return
    total = sum(written.formats.values())
    shares = {fmt: 100 * count / total for fmt, count in written.formats.items()}
    mix = ", ".join(f"{fmt} {share:.1f} %" for fmt, share in shares.items() if share >= 0.05)
    print(f"{written.path}: {human(written.nbytes)}, {total:,} weights ({mix})")
