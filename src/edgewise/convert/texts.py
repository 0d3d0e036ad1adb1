"""The text at hand on every machine: this interpreter's own standard library, with a part that is never trained on.

Source: CPython, under the PSF License Version 2 (https://docs.python.org/3/license.html). The embedded model was
trained on the part that `is_held_out` leaves, so the other part is news to it.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from edgewise.base import BadInput
from edgewise.weights import bundle

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})
HELD_OUT_PERCENT = 3.0
LONGEST_BYTES = 200_000  # larger files are mostly tables


def stdlib_folder() -> Path:
    """The folder of this interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def is_held_out(path: str, percent: float) -> bool:
    """Whether a relative path belongs to the held-out part: a pure function of the path, stable over versions."""
    return _place(path) < percent / 100 * 2**64


def _place(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")


def library_texts(held_out: bool, root: Path | None = None) -> Iterator[str]:
    """Files of the one part or the other, in an order that mixes the library's packages, always the same."""
    folder = stdlib_folder() if root is None else root
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py")}
    for path in sorted(files, key=_place):
        if SKIPPED_FOLDERS.intersection(Path(path).parts) or is_held_out(path, HELD_OUT_PERCENT) != held_out:
            continue
        try:
            yield bundle.read_bytes(files[path], LONGEST_BYTES).decode()
        except (BadInput, UnicodeDecodeError):
            continue  # too large, or in another encoding on purpose


def library_text(held_out: bool, chars: int) -> str:
    """At least so many characters of the library, where it has them. Raises BadInput when it has none."""
    parts: list[str] = []
    room = chars
    for text in library_texts(held_out):
        parts.append(text)
        room -= len(text)
        if room <= 0:
            break
    if not parts:
        raise BadInput("This Python has no source of its standard library to read; name a text file instead.")
    return "".join(parts)
