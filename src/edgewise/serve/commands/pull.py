"""`edgewise pull`: fetch a model into the Hugging Face cache; continues where it stopped."""

import json
from typing import Annotated

import typer

from edgewise.serve import hub
from edgewise.serve.options import Json


def command(
    repo: Annotated[str, typer.Argument(metavar="REPO[:FILE]", help="user/repo; :FILE or :QUANT for one GGUF")],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit")] = None,
    as_json: Json = False,
) -> None:
    """Downloads configuration, tokenizer and weights, nothing else, and prints where they are."""
    path = hub.pull(repo, revision)
    print(json.dumps({"repo": repo, "path": str(path)}) if as_json else path)
