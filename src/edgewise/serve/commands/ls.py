"""`edgewise ls`: the models on this machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgewise.base import BadInput
from edgewise.serve.hub import cached, local
from edgewise.serve.options import Json, human, table


def command(
    folder: Annotated[Path, typer.Argument(help="look for files here, besides the cache")] = Path("."),
    as_json: Json = False,
) -> None:
    """Lists models in a folder (default: this one) and in the Hugging Face cache."""
    if not folder.is_dir():
        raise BadInput(f"'{folder}' is not a folder.")
    found = [*local(folder), *cached()]
    if as_json:
        print(json.dumps([{**asdict(model), "path": str(model.path)} for model in found], indent=1))
    elif found:
        rows = [[model.name, model.kind, human(model.nbytes), model.where] for model in found]
        print(table([["NAME", "KIND", "SIZE", "WHERE"], *rows], {2}))
    else:
        print("No models here or in the cache yet; 'edgewise pull user/repo' fetches one, 'edgewise run' needs none.")
