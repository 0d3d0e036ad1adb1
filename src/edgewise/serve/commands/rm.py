"""`edgewise rm`: delete a model from the Hugging Face cache."""

import json
import sys
from typing import Annotated

import typer

from edgewise.base import BadInput
from edgewise.serve import hub
from edgewise.serve.options import Json, human


def command(
    repo: Annotated[str, typer.Argument(help="user/repo, as `edgewise ls` prints it")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Deletes a model's repository from the Hugging Face cache. Files outside the cache are never touched."""
    if not hub.is_repository(repo):
        raise BadInput(f"'{repo}' is not a repository name (user/repo); local files are yours to delete.")
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {repo} from the Hugging Face cache?", abort=True)
    freed = hub.remove(repo)
    print(json.dumps({"removed": repo, "freed_bytes": freed}) if as_json else f"Removed {repo}: {human(freed)} freed.")
