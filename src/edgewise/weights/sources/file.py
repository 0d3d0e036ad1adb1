"""Plain files: every read is one pread into fresh memory; or, for who reads by himself, an open file and an offset.

Paper:  none.
Exact.
Needs:  nothing
Cost:   one system call and one copy from the page cache a read
Status: kept
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels.api import Place
from edgewise.weights import bundle
from edgewise.weights.api import Extent

Preadv = Callable[[int, Sequence[memoryview], int], int]
_CHUNK = 1 << 30  # Linux reads at most 2 GiB a call


class FileSource:
    """Reads extents of `files` (Header.files). pread, not mmap: a truncated file is an error, not a signal (D5).

    Several threads may read at once.
    """

    def __init__(self, files: Sequence[Path], *, preadv: Preadv = os.preadv) -> None:
        self.files = tuple(files)
        self._preadv = preadv
        self._fds: dict[int, int] = {}
        self._opening = threading.Lock()

    def place(self, extent: Extent) -> Place | None:
        """Where the bytes lie as they are, for a device that reads them itself. None: they must come through read()."""
        if self._preadv is not os.preadv:
            return None
        return Place(self._open(extent.file), extent.offset, self.files[extent.file])

    def _open(self, file: int) -> int:
        with self._opening:  # two threads would both open it, and one descriptor would be lost
            if file not in self._fds:
                path = self.files[file]
                # A GGUF file may be a link that the user chose; opening the checkpoint has checked the others.
                self._fds[file], _ = bundle.open_file(path, chosen=path.suffix != ".safetensors")
            return self._fds[file]

    def read(self, extent: Extent, offset: int, nbytes: int) -> memoryview:
        """`nbytes` bytes from `offset` within the extent. Raises BadInput naming file and offset on any failure."""
        if offset < 0 or nbytes < 0 or offset + nbytes > extent.nbytes:
            raise BadInput(f"Bytes {offset} to {offset + nbytes} lie outside a tensor of {extent.nbytes} bytes.")
        fd, path, start = self._open(extent.file), self.files[extent.file], extent.offset + offset
        size = os.fstat(fd).st_size
        if start + nbytes > size:
            raise BadInput(f"{path}: bytes {start} to {start + nbytes} are wanted but the file has {size}: it shrank.")
        into = np.empty(nbytes, np.uint8).data  # not zeroed first
        done = 0
        while done < nbytes:
            try:
                got = self._preadv(fd, [into[done : done + _CHUNK]], start + done)
            except InterruptedError:
                continue
            except OSError as error:
                raise BadInput(f"{path}: reading {nbytes} bytes at byte {start} failed: {error.strerror}.") from None
            if got <= 0:
                raise BadInput(f"{path}: reading {nbytes} bytes at byte {start} gave only {done}: it was cut short.")
            done += got
        return into

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        with self._opening:
            while self._fds:
                os.close(self._fds.popitem()[1])
