"""Plain files: every read is one pread into fresh memory; or, for who reads by himself, an open file and an offset.

Paper:  none.
Exact.
Needs:  nothing
Cost:   one system call and one copy from the page cache a read; with direct=True none, and no page cache
Status: kept
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels.api import Place
from edgewise.weights import bundle
from edgewise.weights.api import Extent

Preadv = Callable[[int, Sequence[memoryview], int], int]
_CHUNK = 1 << 30  # Linux reads at most 2 GiB a call
PAGE = 4096  # what O_DIRECT wants offsets, lengths and addresses to be multiples of
HUGE_PAGE = 2 << 20
TRIES = 8  # reads of less than a page before that counts as an end


class FileSource:
    """Reads extents of `files` (Header.files). pread, not mmap: a truncated file is an error, not a signal (D5).

    direct: past the page cache (O_DIRECT); `direct` is False again where the file system cannot. Then only whole pages
    are read, and bytes that do not begin or end with one go through a buffer of the thread's own.
    Several threads may read at once.
    """

    def __init__(self, files: Sequence[Path], *, preadv: Preadv = os.preadv, direct: bool = False) -> None:
        self.files = tuple(files)
        self.direct = direct
        self._preadv = preadv
        self._fds: dict[int, int] = {}
        self._opening = threading.Lock()
        self._local = threading.local()

    def place(self, extent: Extent) -> Place | None:
        """Where the bytes lie as they are, for a device that reads them itself. None: they must come through read()."""
        if self._preadv is not os.preadv or self.direct:
            return None
        return Place(self._open(extent.file), extent.offset, self.files[extent.file])

    def descriptor(self, file: int) -> tuple[int, Path] | None:
        """An open file, for who reads by himself. None: the bytes must come through read()."""
        return None if self._preadv is not os.preadv else (self._open(file), self.files[file])

    def _open(self, file: int) -> int:
        with self._opening:  # two threads would both open it, and one descriptor would be lost
            if file not in self._fds:
                path = self.files[file]
                # A GGUF file may be a link that the user chose; opening the checkpoint has checked the others.
                fd, _ = bundle.open_file(path, chosen=path.suffix != ".safetensors")
                self.direct = self.direct and bundle.make_direct(fd)
                self._fds[file] = fd
            return self._fds[file]

    def read(self, extent: Extent, offset: int, nbytes: int) -> memoryview:
        """`nbytes` bytes from `offset` within the extent. Raises BadInput naming file and offset on any failure."""
        fd, start = self._find(extent, offset, nbytes)
        into = np.empty(nbytes, np.uint8).data  # not zeroed first
        self._read(fd, extent.file, start, into)
        return into

    def read_into(self, extent: Extent, offset: int, into: memoryview) -> None:
        """The same into memory that is there already."""
        fd, start = self._find(extent, offset, len(into))
        self._read(fd, extent.file, start, into)

    def glance(self, extent: Extent, offset: int, nbytes: int) -> memoryview:
        """The same in memory of this thread's, until its next read."""
        fd, start = self._find(extent, offset, nbytes)
        if self.direct:
            return self._pages(fd, extent.file, start, nbytes)
        into = self._buffer(nbytes)
        self._fill(fd, extent.file, start, into, nbytes)
        return into

    def _find(self, extent: Extent, offset: int, nbytes: int) -> tuple[int, int]:
        """(descriptor, offset in the file), when the bytes are there."""
        if offset < 0 or nbytes < 0 or offset + nbytes > extent.nbytes:
            raise BadInput(f"Bytes {offset} to {offset + nbytes} lie outside a tensor of {extent.nbytes} bytes.")
        fd, start = self._open(extent.file), extent.offset + offset
        size = os.fstat(fd).st_size
        if start + nbytes > size:
            path = self.files[extent.file]
            raise BadInput(f"{path}: bytes {start} to {start + nbytes} are wanted but the file has {size}: it shrank.")
        return fd, start

    def _read(self, fd: int, file: int, start: int, into: memoryview) -> None:
        if not self.direct:
            self._fill(fd, file, start, into, len(into))
        elif start % PAGE or len(into) % PAGE or _address(into) % PAGE:
            into[:] = self._pages(fd, file, start, len(into))
        else:
            self._fill(fd, file, start, into, len(into))

    def _pages(self, fd: int, file: int, start: int, nbytes: int) -> memoryview:
        """The bytes within the whole pages that hold them."""
        first = start // PAGE * PAGE
        needed = start + nbytes - first
        pages = self._buffer(-(-needed // PAGE) * PAGE)
        self._fill(fd, file, first, pages, needed)
        return pages[start - first : needed]

    def _buffer(self, nbytes: int) -> memoryview:
        """Of this thread, on whole pages, as large as its largest read. Large ones lie on huge pages: a request to the
        disk takes so many pieces of memory and no more."""
        held: npt.NDArray[np.uint8] | None = getattr(self._local, "buffer", None)
        if held is None or len(held) < nbytes:
            page = HUGE_PAGE if nbytes >= HUGE_PAGE // 8 else PAGE
            size = -(-nbytes // page) * page
            room = np.empty(size + page, np.uint8)  # numpy asks for huge pages from 4 MiB on
            at = -_address(room.data) % page
            self._local.buffer = held = room[at : at + size]
        return held.data[:nbytes]

    def _fill(self, fd: int, file: int, start: int, into: memoryview, needed: int) -> None:
        """At least the first `needed` bytes of `into`; more may be asked for than the file has."""
        done, stuck, path = 0, 0, self.files[file]
        while done < needed:
            try:
                got = self._preadv(fd, [into[done : done + _CHUNK]], start + done)
            except InterruptedError:
                continue
            except OSError as error:
                raise BadInput(f"{path}: reading {needed} bytes at byte {start} failed: {error.strerror}.") from None
            if got <= 0:
                raise BadInput(f"{path}: reading {needed} bytes at byte {start} gave only {done}: it was cut short.")
            done += got
            if self.direct and done < needed and done % PAGE:  # O_DIRECT goes on from a whole page only
                done, stuck = done // PAGE * PAGE, stuck + (got < PAGE)
                if stuck == TRIES:
                    raise BadInput(f"{path}: reading {needed} bytes at byte {start} gave only {done + got}.")

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        with self._opening:
            while self._fds:
                os.close(self._fds.popitem()[1])


def _address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).__array_interface__["data"][0])
