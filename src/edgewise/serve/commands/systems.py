"""`edgewise systems`: the table of docs/systems.md, read from the repository or from the copy inside the package."""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from edgewise.base import BadInput
from edgewise.serve.options import Json, table

KEYS = ("number", "system", "paper", "built", "exactness", "reality", "command", "figure", "status")


def text() -> str:
    """docs/systems.md itself. In a checkout the repository's file wins, so that an edit shows at once."""
    repository = Path(__file__).resolve().parents[4]
    document = repository / "docs" / "systems.md"
    if (repository / "pyproject.toml").is_file() and document.is_file():
        return document.read_text(encoding="utf-8")
    packed = resources.files("edgewise.serve") / "systems.md"
    if not packed.is_file():
        raise BadInput("This installation carries no table of systems; install edgewise again.")
    return packed.read_text(encoding="utf-8")


def rows() -> list[dict[str, str]]:
    """One dictionary per system, keys as in KEYS."""
    found = []
    for line in text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit() and len(cells) == len(KEYS):
            found.append(dict(zip(KEYS, cells, strict=True)))
    return found


def command(
    word: Annotated[str | None, typer.Argument(help="only rows that contain this word")] = None,
    as_json: Json = False,
) -> None:
    """Prints the published systems edgewise unites: what is built, the command that measures it, the figure."""
    chosen = [row for row in rows() if word is None or word.lower() in " ".join(row.values()).lower()]
    if as_json:
        print(json.dumps(chosen, indent=1, ensure_ascii=False))
        return
    if not chosen:
        print(f"No system mentions '{word}'.")
        return
    shown = ("number", "system", "paper", "status", "built", "figure")
    print(table([["#", *shown[1:]], *([_short(row[key]) for key in shown] for row in chosen)], {0}))


def _short(cell: str) -> str:
    return cell if len(cell) <= 48 else cell[:47] + "…"
