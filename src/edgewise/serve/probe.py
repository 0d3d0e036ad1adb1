"""Read bandwidth of this machine, measured with threads that only read: the roof for anything that streams weights.

libc's memchr, looking for a byte that is not there, reads at memory speed in vector registers and releases the
interpreter's lock; it measured equal to a hand-written AVX-512 loop. Where libc has none, numpy's maximum is used.
"""

import ctypes
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def read_bandwidth(threads: int, nbytes: int = 128 << 20, passes: int = 5) -> float:
    """GB/s (10^9) that `threads` threads read together, each its own buffer of `nbytes`; the median of `passes`.

    nbytes must exceed the last-level cache. Memory in use: threads * nbytes, freed on return.
    """
    scan = _scanner()
    buffers = [np.ones(nbytes, np.uint8) for _ in range(threads)]  # written, so that real pages are read
    rates = [_one_pass(scan, buffers) for _ in range(passes + 1)][1:]
    return statistics.median(rates)


def _one_pass(scan: Callable[[Bytes], None], buffers: list[Bytes]) -> float:
    gate = threading.Barrier(len(buffers) + 1)

    def work(buffer: Bytes) -> None:
        gate.wait()
        scan(buffer)
        gate.wait()

    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return sum(buffer.nbytes for buffer in buffers) / seconds / 1e9


def _scanner() -> Callable[[Bytes], None]:
    try:
        memchr = ctypes.CDLL(None).memchr
    except (OSError, AttributeError, TypeError):
        return _numpy_scan
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    memchr.restype = ctypes.c_void_p

    def scan(buffer: Bytes) -> None:
        memchr(buffer.ctypes.data, 2, buffer.nbytes)

    return scan


def _numpy_scan(buffer: Bytes) -> None:
    buffer.view(np.uint64).max()
