"""Output that is whole or absent: written beside its final place, synced, then renamed; removed on any failure.

What a killed run left beside its output is removed by the next one: a living writer holds a lock on its own.
"""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgewise.base import BadInput, OutOfRoom

# What a folder may hold that --force may replace. Anything else in it is not ours to delete.
_OURS = (".safetensors", ".json", ".jinja", ".gguf")


def check_output(path: Path, nbytes: int, *, force: bool, folder: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuses, before anything is written: output in the way, output that is the input, no room on the disk."""
    real = Path(os.path.realpath(path))
    for source in inputs:
        if real == Path(os.path.realpath(source)) or (folder and real in Path(os.path.realpath(source)).parents):
            raise BadInput(f"{path} is the model being read. Choose another output.")
    if os.path.lexists(path):
        if not force:
            raise BadInput(f"{path} exists. Choose another output, or replace it with --force.")
        if path.is_dir() != folder:
            raise BadInput(f"{path} is a {'folder' if path.is_dir() else 'file'}, so this output cannot replace it.")
        strangers = [p.name for p in path.iterdir() if not p.name.endswith(_OURS)] if folder else []
        if strangers:
            raise BadInput(f"{path} also holds {strangers[0]!r}, so --force will not replace the folder.")
    parent = real.parent
    if not parent.is_dir():
        raise BadInput(f"{path}: the folder {parent} does not exist.")
    if not os.access(parent, os.W_OK):
        raise BadInput(f"{path}: nothing may be written in {parent}.")
    free = shutil.disk_usage(parent).free
    if nbytes > free:
        raise OutOfRoom(
            f"{path} would take {nbytes / 2**30:.2f} GiB, but {parent} has only {free / 2**30:.2f} GiB free. "
            "Free some space, write elsewhere, or choose a smaller --quant."
        )


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` only when the block ends well; an existing one is replaced in one step."""
    _sweep(path)
    fd, temporary = _begin(path, folder=False)
    try:
        with os.fdopen(fd, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, that appears at `path` only when the block ends well; an existing one is replaced."""
    _sweep(path)
    held, temporary = _begin(path, folder=True)
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as stream:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o777 & ~_umask())
        _sync_folder(temporary)
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.rename(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(held)
    shutil.rmtree(old, ignore_errors=True)
    _sync_folder(path.parent)


def _begin(path: Path, *, folder: bool) -> tuple[int, Path]:
    """A new, locked file or folder beside `path`; another one when a sweep took it before it was locked."""
    prefix, suffix = f".{path.name}.", ".part"
    while True:
        if folder:
            name = tempfile.mkdtemp(suffix, prefix, path.parent)
            fd = os.open(name, os.O_RDONLY)
        else:
            fd, name = tempfile.mkstemp(suffix, prefix, path.parent)
        with suppress(OSError):  # a file system without locks: nothing is ever swept there
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.exists(name):
            return fd, Path(name)
        os.close(fd)


def _sweep(path: Path) -> None:
    """Removes what killed writers of `path` left beside it; brings back a folder that was about to be replaced."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.*"):
        if left.suffix == ".old" and not path.exists():
            os.rename(left, path)
        elif left.suffix == ".old":
            shutil.rmtree(left, ignore_errors=True)
        elif left.suffix == ".part":
            with suppress(OSError):  # a living writer's, somebody else's, or gone
                fd = os.open(left, os.O_RDONLY)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                finally:
                    os.close(fd)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
