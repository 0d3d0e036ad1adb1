"""What the gates look at: the repository's own files, its Python modules, its catalogs."""

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edgewise.base import Catalog
from edgewise.serve.commands.members import catalogs as installed_catalogs

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "edgewise"


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Files under version control; in an unpacked archive, every file outside build folders."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode == 0 and done.stdout:
        found = (ROOT / name for name in done.stdout.decode().split("\0") if name)
    else:
        skip = {".git", ".venv", "build", "dist", "__pycache__"}
        found = (p for p in ROOT.rglob("*") if not skip & set(p.relative_to(ROOT).parts))
    return tuple(sorted(p for p in found if p.is_file()))


def python_files(*folders: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in folders]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts() -> Iterator[tuple[Path, str]]:
    """Tracked files that are text."""
    for path in tracked():
        blob = path.read_bytes()
        if b"\0" not in blob[:4096]:
            yield path, blob.decode("utf-8", errors="replace")


@functools.cache
def catalogs() -> tuple[tuple[str, Catalog], ...]:
    return tuple(installed_catalogs())


def members() -> list[tuple[str, str, str, str]]:
    """(slot, name, module, attribute) of every member of every catalog."""
    rows = []
    for package, catalog in catalogs():
        for name, target in catalog.items():
            module, _, attribute = target.partition(":")
            rows.append((catalog.slot, name, package + module if module.startswith(".") else module, attribute))
    return rows


def file_of(module: str) -> Path:
    return ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
