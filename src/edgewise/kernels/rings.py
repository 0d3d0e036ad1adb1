"""io_uring: one read asked for in many parts at once, with one system call. Often forbidden in containers."""

import os

import numpy as np

from edgewise import _native

ENTRIES = 16


class Queue:
    """One thread's ring. error: errno of the set-up; 0: it can be used."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._ring = _native.Uring(entries)
        self.error = self._ring.error

    def read(self, fd: int, into: memoryview, offset: int, part: int) -> int:
        """Like os.preadv: bytes that arrived, perhaps fewer than asked for. part: bytes of one request, whole pages."""
        got, error = self._ring.read(fd, np.frombuffer(into, np.uint8), offset, part)
        if error:
            raise OSError(error, os.strerror(error))  # EINTR becomes InterruptedError
        return got


def why_not() -> str:
    """Why there is no io_uring here; empty: there is."""
    error = Queue(1).error
    return os.strerror(error) if error else ""
