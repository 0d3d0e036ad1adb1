"""Plain files read through io_uring: a piece is asked for in parts at once, so that few threads keep a disk busy.

Paper:  Axboe, Efficient IO with io_uring, 2019 (https://kernel.dk/io_uring.pdf)
Exact.
Needs:  a Linux that allows io_uring_setup; containers often do not, and then it is refused by name
Cost:   one system call a piece
Status: kept, taken where a probe finds it faster
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from edgewise.base import Unsupported
from edgewise.kernels.rings import Queue, why_not
from edgewise.weights.sources.file import FileSource

PART = 256 << 10  # bytes of one request


class UringSource(FileSource):
    """part: bytes of one request, whole pages. Every reading thread has a ring of its own."""

    def __init__(self, files: Sequence[Path], *, direct: bool = False, part: int = PART) -> None:
        reason = why_not()
        if reason:
            raise Unsupported(f"source 'uring': this system allows no io_uring ({reason}). Take source 'file'.")
        super().__init__(files, preadv=self._ask, direct=direct)
        self.part = part
        self._own = threading.local()

    def _ask(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        queue: Queue | None = getattr(self._own, "queue", None)
        if queue is None or queue.error:
            self._own.queue = queue = Queue()
        return queue.read(fd, buffers[0], offset, self.part)
