"""A disk that fails on purpose: the k-th system call of a FileSource gives an error, too few bytes, or a wrong bit.

Paper:  none (fault injection as SQLite's test suite does it).
Exact.
Needs:  nothing
Cost:   as the plain file
Status: kept, for tests
"""

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from edgewise.base import BadInput
from edgewise.weights.sources.file import FileSource

ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}
KINDS = (*ERRORS, "short", "end", "flip")


class FaultySource(FileSource):
    """`kind` at call number `at` (from 0): "eio" and "enospc" fail; "short" gives half the bytes, which a source must
    repair by asking again; "end" gives none, as a file cut short does; "flip" inverts one bit, which nobody notices."""

    def __init__(self, files: Sequence[Path], *, kind: str = "eio", at: int = 0, direct: bool = False) -> None:
        if kind not in KINDS:
            raise BadInput(f"source 'faulty' has no kind {kind!r}. Known: {', '.join(KINDS)}.")
        super().__init__(files, preadv=self._fail, direct=direct)
        self.kind = kind
        self.at = at
        self.calls = 0
        self._counting = threading.Lock()

    def _fail(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        with self._counting:
            now, self.calls = self.calls, self.calls + 1
        if now != self.at:
            return os.preadv(fd, buffers, offset)
        if self.kind in ERRORS:
            raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]))
        if self.kind == "end":
            return 0
        if self.kind == "short":
            return os.preadv(fd, [buffers[0][: max(1, len(buffers[0]) // 2)]], offset)
        got = os.preadv(fd, buffers, offset)
        buffers[0][got // 2] ^= 1
        return got
