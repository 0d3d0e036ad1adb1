"""Plain files read through the page cache, each piece announced to the kernel before it is read, nothing beyond it.

Paper:  none (the mode that llama.cpp's users found faster than slots of one's own: memory goes to the page cache)
Exact.
Needs:  memory beside the process's own, which the kernel takes back when others want it
Cost:   a copy from the page cache a read; a control group counts those pages, a process does not
Status: kept, where O_DIRECT is not to be had or a probe finds this faster
"""

import os
from collections.abc import Sequence
from pathlib import Path

from edgewise.weights.sources.file import FileSource


class CachedSource(FileSource):
    """POSIX_FADV_RANDOM: the kernel's own read-ahead (up to megabytes a fault) is off; WILLNEED asks for the piece."""

    def __init__(self, files: Sequence[Path], *, direct: bool = False) -> None:
        super().__init__(files, preadv=self._announce)
        self._told: set[int] = set()

    def _announce(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        if hasattr(os, "posix_fadvise"):
            if fd not in self._told:
                self._told.add(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            os.posix_fadvise(fd, offset, len(buffers[0]), os.POSIX_FADV_WILLNEED)
        return os.preadv(fd, buffers, offset)

    def close(self) -> None:
        super().close()
        self._told.clear()
