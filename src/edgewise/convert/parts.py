"""Finished tensors, kept beside the output until all of it is written: an interrupted conversion goes on from them.

A part's name is a digest of everything its bytes depend on, so a part is either the right one or not found.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgewise.kernels.formats import Bytes

PIECE_BYTES = 1 << 24


class Parts:
    """output: what will be written at the end. stamp: what all parts depend on (the source, the calibration)."""

    def __init__(self, output: Path, stamp: str) -> None:
        self.folder = output.parent / f".{output.name}.parts"
        self.stamp = stamp

    def path(self, what: str) -> Path:
        digest = hashlib.sha256("\0".join([self.stamp, what]).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.bin"

    def has(self, what: str, nbytes: int) -> bool:
        path = self.path(what)
        return path.is_file() and path.stat().st_size == nbytes

    def keep(self, what: str, pieces: Iterable[Bytes]) -> None:
        """Writes a part; until its last byte is on the disk it does not exist."""
        self.folder.mkdir(exist_ok=True)
        path = self.path(what)
        new = path.with_suffix(".new")
        with open(new, "wb", buffering=1 << 20) as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)

    def read(self, what: str) -> Iterator[Bytes]:
        with open(self.path(what), "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield np.frombuffer(piece, np.uint8)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
