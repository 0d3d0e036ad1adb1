"""`edgewise inflate`: a trained model made larger without changing what it says, to measure on real bytes."""

from pathlib import Path
from typing import Annotated

import typer

from edgewise.convert.inflating import inflate
from edgewise.serve.commands.convert import Force, Out, report
from edgewise.serve.hub import locate
from edgewise.serve.options import Json
from edgewise.serve.progress import bar


def command(
    model: Annotated[str, typer.Argument(help="a folder, a GGUF file, or user/repo[:file.gguf] from the cache")],
    out: Out,
    gib: Annotated[float, typer.Option("--gib", help="about how large the file becomes, in GiB")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Widens a model: every neuron, head and part of the stream several times, each with a share of the weight.

    Logits stay equal but for the order of additions (1e-5 of the largest; where activations are int8, their noise); no
    weight is zero. The KV cache grows with the heads. For measurements: say "inflated" beside every figure.
    """
    with bar(f"{out.name}") as watch:
        written = inflate(Path(locate(model)), out, gib=gib, force=force, watch=watch)
    report(written, as_json)
