"""`edgewise members`: the house's table of contents, read from the catalogs themselves."""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

import edgewise
from edgewise.base import Catalog


def catalogs() -> Iterator[tuple[str, Catalog]]:
    """(package, catalog) for every catalog in the installed package, extras aside."""
    seen: set[int] = set()
    for info in pkgutil.walk_packages(edgewise.__path__, "edgewise."):
        if not info.ispkg or info.name.startswith(("edgewise.train", "edgewise.testing", "edgewise.embedded")):
            continue
        module = importlib.import_module(info.name)
        for value in list(vars(module).values()):  # importing may add names
            if isinstance(value, Catalog) and value.package == info.name and id(value) not in seen:
                seen.add(id(value))
                yield info.name, value


def describe(target: str, package: str) -> dict[str, str]:
    """First docstring line, paper and status of a member's file, without importing more than that file."""
    module = target.partition(":")[0]
    name = importlib.util.resolve_name(module, package)
    try:
        text = inspect.getdoc(importlib.import_module(name)) or ""
    except ImportError as error:
        return {"what": f"cannot be imported: {error}", "paper": "", "status": "broken"}
    paper = re.search(r"Paper:\s*(.+?)(?:\s{3,}\S+\.|\n\S|$)", text, re.DOTALL)
    status = re.search(r"Status:\s*(\w+)", text)
    return {
        "what": text.partition("\n")[0],
        "paper": " ".join(paper.group(1).split()) if paper else "",
        "status": status.group(1) if status else "",
    }


def command(
    word: Annotated[str | None, typer.Argument(help="only slots and members that contain this word")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a list of objects")] = False,
) -> None:
    """Prints every slot with its members: what each is, its paper, its status."""
    rows: list[dict[str, Any]] = []
    for package, catalog in catalogs():
        for name, target in catalog.items():
            rows.append({"slot": catalog.slot, "name": name, **describe(target, package)})
        for point in entry_points(group=f"edgewise.{catalog.slot}s"):
            outside = {"what": f"from {point.value}", "paper": "", "status": ""}
            rows.append({"slot": catalog.slot, "name": point.name, **outside})
    rows = [row for row in rows if word is None or word.lower() in f"{row['slot']} {row['name']} {row['what']}".lower()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    slot = None
    for row in rows:
        if row["slot"] != slot:
            slot = row["slot"]
            print(f"{slot}")
        paper = "" if row["paper"].startswith("none") or not row["paper"] else f" [{row['paper']}]"
        print(f"  {row['name']:<14} {row['status']:<8} {row['what']}{paper}")
