"""`edgewise fabricate`: a model with random weights in a real shape, to measure speed and memory without a download."""

from pathlib import Path
from typing import Annotated

import typer

from edgewise.convert.fabricating import fabricate
from edgewise.serve.commands.convert import Force, Out, Pure, To, report
from edgewise.serve.options import Json
from edgewise.serve.progress import bar


def command(
    out: Out,
    shape: Annotated[
        str | None,
        typer.Argument(help="llama-3.2-1b, qwen2.5-0.5b, olmoe-1b-7b, stories-15m or -110m; or give --config"),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="a Hugging Face config.json with the shape")] = None,
    to: To = None,
    quant: Annotated[
        str | None, typer.Option("--quant", "-q", help="as for convert; block formats mean GGUF [default: bf16]")
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="another number of layers")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="the same seed, the same weights")] = 0,
    pure: Pure = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Makes a model out of nothing: N(0, 0.02) weights, norms of 1, a byte-level tokenizer with the full vocabulary."""
    with bar(f"{out.name}") as watch:
        written = fabricate(
            out, shape=shape, config=config, to=to, quant=quant, layers=layers, seed=seed, pure=pure, force=force,
            watch=watch,
        )  # fmt: skip
    report(written, as_json)
