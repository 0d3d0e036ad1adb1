"""`edgewise version`: what is installed, in one line or as JSON."""

import json
import platform
from typing import Annotated, Any

import typer

import edgewise


def command(as_json: Annotated[bool, typer.Option("--json", help="one object")] = False) -> None:
    """Versions of edgewise, its extension and Python."""
    facts: dict[str, Any] = {
        "edgewise": edgewise.__version__,
        "native": _has_native(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if as_json:
        print(json.dumps(facts))
        return
    native = "with the compiled extension" if facts["native"] else "without the compiled extension"
    print(f"edgewise {facts['edgewise']} {native}, Python {facts['python']}, {facts['machine']}")


def _has_native() -> bool:
    from importlib.util import find_spec

    return find_spec("edgewise._native") is not None
