"""Installed packages under permissive licences: their Python source and documents, with a note of every licence.

What is installed differs between machines. So the recipe is written down: which package, which version, how many bytes,
and a digest; `differences` compares that with the list of an earlier run, and the model card says what was read.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from edgewise.convert.texts import is_held_out
from edgewise.train.corpus import Document, looks_generated

PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|BSD|BSD-[0-9]-Clause|0BSD|Apache|Apache-2\.0|ISC|ISCL|PSF-2\.0|Python Software Foundation|"
    r"Zlib|Unlicense|CC0-1\.0|HPND)\b"
)
NOT_PERMISSIVE = re.compile(r"\b(A?L?GPL|GNU|MPL|Mozilla|EUPL|CDDL|EPL|proprietary|commercial|NVIDIA)", re.IGNORECASE)
KINDS = (".py", ".pyi", ".md", ".rst")
MOST_BYTES = 1_000_000  # of one package, or the largest would be the corpus
LARGEST_FILE = 200_000
LEFT_OUT = frozenset({"edgewise"})


def licence(meta: metadata.PackageMetadata) -> str:
    """What a package's metadata says, in a line: the expression, else classifiers, else the first line of License."""
    fields: Mapping[str, Any] = meta.json
    expression = fields.get("license_expression")
    if expression:
        return str(expression)
    classes = [c.rpartition(" :: ")[2] for c in fields.get("classifier", ()) if c.startswith("License ::")]
    return "; ".join(classes) or str(fields.get("license") or "").strip().partition("\n")[0][:80]


def permissive(words: str) -> bool:
    return bool(PERMISSIVE.search(words)) and not NOT_PERMISSIVE.search(words)


def _files(package: metadata.Distribution) -> list[tuple[str, Path]]:
    found = {}
    for file in package.files or ():
        path = file.as_posix()
        if path.endswith(KINDS) and ".." not in path and ".dist-info/" not in path:
            found[path] = Path(str(package.locate_file(file)))
    # Sorted by the hash that also splits: where a package is cut short, every part of it loses alike.
    return sorted(found.items(), key=lambda item: (_place(item[0]), item[0]))


def _place(path: str) -> int:
    return int.from_bytes(hashlib.sha256(f"order\0{path}".encode()).digest()[:8], "big")


def gather_packages(
    held_out_percent: float = 3.0, path: list[str] | None = None
) -> tuple[list[Document], list[dict[str, Any]]]:
    """Documents of all permissive packages by name, and one row a package: name, version, licence, documents, bytes.

    path: folders to search instead of sys.path. Packages under other licences get a row with no documents.
    """
    documents: list[Document] = []
    rows: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    searched = metadata.distributions(path=path) if path is not None else metadata.distributions()
    for package in sorted(searched, key=lambda d: (d.name or "").lower()):
        name, words = (package.name or "").lower(), licence(package.metadata)
        if not name or name in rows or name in LEFT_OUT:
            continue
        chosen = list(_documents(package, name, held_out_percent, seen)) if permissive(words) else []
        documents += chosen
        size = sum(len(d.text.encode()) for d in chosen)
        rows[name] = {"name": name, "version": package.version, "licence": words or "none stated",
                      "documents": len(chosen), "bytes": size}  # fmt: skip
    return documents, list(rows.values())


def _documents(package: metadata.Distribution, name: str, percent: float, seen: set[str]) -> Iterator[Document]:
    room = MOST_BYTES
    for path, file in _files(package):
        try:
            if not 0 < file.stat().st_size <= min(room, LARGEST_FILE):
                continue
            text = file.read_text(encoding="utf-8").replace("\r\n", "\n").strip("\n") + "\n"
        except (OSError, UnicodeDecodeError):
            continue
        if text in seen or "\r" in text or looks_generated(text):
            continue
        seen.add(text)
        room -= len(text.encode())
        yield Document(f"{name}/{path}", text, is_held_out(path, percent))
