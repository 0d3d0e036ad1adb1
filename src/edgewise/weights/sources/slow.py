"""A disk of a given speed: every read takes latency_s and its bytes at bytes_per_s, one read after the other.

Paper:  none (the link of the offloading papers, emulated by sleeping, never by spinning).
Exact.
Needs:  nothing
Cost:   as the plain file, plus the time that it was told to take
Status: kept, for tests and for bench runs that must not depend on the disk
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from edgewise.base import BadInput
from edgewise.weights.sources.file import FileSource


class SlowSource(FileSource):
    """Reads share one link: the bytes of two readers take as long as those of one that reads both."""

    def __init__(
        self, files: Sequence[Path], *, bytes_per_s: float = 1e9, latency_s: float = 0.0, direct: bool = False
    ) -> None:
        if bytes_per_s <= 0 or latency_s < 0:
            raise BadInput("source 'slow' needs bytes_per_s above 0 and latency_s of at least 0.")
        super().__init__(files, preadv=self._wait, direct=direct)
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self._link = threading.Lock()

    def _wait(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        with self._link:
            begin = time.perf_counter()
            got = os.preadv(fd, buffers, offset)
            left = self.latency_s + got / self.bytes_per_s - (time.perf_counter() - begin)
            if left > 0:
                time.sleep(left)
        return got
