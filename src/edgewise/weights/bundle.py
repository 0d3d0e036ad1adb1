"""The one door to a model's files: what may be opened, and how (rows R03 and R04).

Only JSON, jinja templates, tokenizer files, safetensors and GGUF are opened, only regular files, never through a link
that leaves the model's folder, except into the blobs folder of the Hugging Face cache that the model lies in, and never
for writing. Pickle files (.bin, .pt, ...) and Python files are never opened.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgewise.base import BadInput
from edgewise.kernels.parsing import parse_json

SUFFIXES = frozenset({".json", ".jinja", ".safetensors", ".gguf"})
NAMES = frozenset({"tokenizer.model", "vocab.txt", "merges.txt", "added_tokens.txt"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW


def member(folder: Path, name: str) -> Path:
    """folder/name, when name is a plain file name of a kind that may be opened. Raises BadInput."""
    if name != os.path.basename(name) or name in {"", ".", ".."} or "\\" in name or "\0" in name:
        raise BadInput(f"{folder}: the model names the file {name!r}, which is not a plain name inside its folder.")
    if Path(name).suffix not in SUFFIXES and name not in NAMES:
        raise BadInput(f"{folder}: {name!r} is not a kind of file that is ever opened ({', '.join(sorted(SUFFIXES))}).")
    return folder / name


def _allowed(path: Path, real: Path) -> bool:
    folder = Path(os.path.realpath(path.parent))
    if real.is_relative_to(folder):
        return True
    # Hugging Face cache: models--org--name/snapshots/<revision>/file → models--org--name/blobs/<hash>
    for parent in folder.parents:
        if parent.name.startswith("models--") and (parent / "snapshots") in folder.parents:
            return real.parent == parent / "blobs"
    return False


def exists(path: Path) -> bool:
    """Whether there is something at path (a broken link counts: opening it then says why it cannot be read)."""
    return os.path.lexists(path)


def open_file(path: Path, *, chosen: bool = False) -> tuple[int, int]:
    """(descriptor, size) of a regular file, opened for reading.

    `chosen`: the user named this very file, so it may be a link that leads anywhere.
    Raises BadInput: not there, not a regular file, not readable, or a link that leaves the folder.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        if not chosen and not _allowed(path, real):
            raise BadInput(f"{path}: this link leads out of the model's folder, to {real}. Put the file itself there.")
        # Asked before opening: to open a FIFO or a device can block or act.
        if not stat.S_ISREG(os.stat(real, follow_symlinks=False).st_mode):
            raise BadInput(f"{path}: not a regular file.")
        fd = os.open(real, _OPEN)
    except FileNotFoundError:
        what = "a link to nothing" if path.is_symlink() else "no such file"
        raise BadInput(f"{path}: {what}.") from None
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        raise BadInput(f"{path}: not a regular file.")
    return fd, info.st_size


@contextmanager
def closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


def make_direct(fd: int) -> bool:
    """From now on reads of fd go past the page cache. False: this file system, or this system, cannot."""
    flag = getattr(os, "O_DIRECT", 0)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | flag)
    except OSError:
        return False
    return bool(flag)


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The whole file; BadInput when it is larger than limit_bytes, unreadable, or not a file that may be opened."""
    fd, size = open_file(path)
    try:
        if size > limit_bytes:
            raise BadInput(f"{path}: {size} bytes, more than the limit of {limit_bytes} for this file.")
        parts = []
        while part := os.read(fd, limit_bytes + 1):
            parts.append(part)
        data = b"".join(parts)
    except OSError as error:
        raise BadInput(f"{path}: reading failed: {error.strerror}.") from None
    finally:
        os.close(fd)
    if len(data) != size:
        raise BadInput(f"{path}: changed while it was read ({size} bytes, then {len(data)}).")
    return data


def read_json(path: Path, limit_bytes: int = 1 << 21) -> Mapping[str, Any]:
    """A JSON object from a file: strict, bounded in size, depth and number of values."""
    value = parse_json(read_bytes(path, limit_bytes), str(path))
    if not isinstance(value, dict):
        raise BadInput(f"{path}: expected a JSON object but found a {type(value).__name__}.")
    return value
