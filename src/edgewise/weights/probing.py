"""Which way of reading a file is the fastest here: users disagree, so it is measured, on the file itself."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.base import BadInput, Unsupported
from edgewise.weights import bundle
from edgewise.weights.api import Extent, Source
from edgewise.weights.sources import SOURCES

USUAL = "file"
OTHERS = ("uring", "cached")
BETTER = 1.1  # how much faster another way must be than the usual one
PIECE_BYTES = 2 << 20
SHARE_BYTES = 32 << 20  # read by each way, at most
THREADS = 4


@dataclass(frozen=True)
class Probed:
    """rates: bytes per second of each way that works. refused: why the others do not."""

    chosen: str
    rates: Mapping[str, float]
    refused: Mapping[str, str]

    @property
    def why(self) -> str:
        if not self.rates:
            return "nothing could be measured"
        said = ", ".join(f"{name} {rate / 1e9:.2f} GB/s" for name, rate in self.rates.items())
        said += "".join(f"; {name}: {reason}" for name, reason in self.refused.items())
        if self.chosen == USUAL:
            return f"{said}; another way must be {BETTER - 1:.0%} faster to be taken"
        return said


def probe(path: Path) -> Probed:
    """Reads up to SHARE_BYTES of the file in each way, past what the page cache holds, each way other parts of it."""
    size = path.stat().st_size // PIECE_BYTES * PIECE_BYTES
    ways = (USUAL, *OTHERS)
    pieces = min(SHARE_BYTES, size // len(ways)) // PIECE_BYTES
    rates: dict[str, float] = {}
    refused: dict[str, str] = {}
    if pieces < THREADS:
        return Probed(USUAL, rates, dict.fromkeys(OTHERS, "the file is too small to measure"))
    for turn, name in enumerate(ways):
        places = [(at * len(ways) + turn) * PIECE_BYTES for at in range(pieces)]
        try:
            rates[name] = _rate(name, path, size, places)
        except Unsupported as reason:
            refused[name] = str(reason)
        except BadInput as reason:  # what reads weights will say the same, if it comes to that
            refused[name] = str(reason)
    best = max(rates, key=lambda name: rates[name], default=USUAL)
    chosen = best if rates.get(best, 0.0) > BETTER * rates.get(USUAL, 0.0) else USUAL
    return Probed(chosen, rates, refused)


def _rate(name: str, path: Path, size: int, places: Sequence[int]) -> float:
    source: Source = SOURCES.build(name, files=(path,), direct=True)
    extent = Extent(0, 0, size)
    try:
        _forget(path)
        source.glance(extent, 0, 1)  # opened
        queue = list(places)
        begin = time.perf_counter()
        _together(lambda: _drain(source, extent, queue))
        return len(places) * PIECE_BYTES / (time.perf_counter() - begin)
    finally:
        source.close()


def _drain(source: Source, extent: Extent, queue: list[int]) -> None:
    while True:
        try:
            at = queue.pop()
        except IndexError:
            return
        source.glance(extent, at, PIECE_BYTES)


def _together(work: Callable[[], None]) -> None:
    """In THREADS threads; raises what the first of them raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, name=f"edgewise-probe-{i}") for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _forget(path: Path) -> None:
    """Takes the file's clean pages out of the page cache, where the kernel allows that."""
    if not hasattr(os, "posix_fadvise"):
        return
    fd, _ = bundle.open_file(path, chosen=True)
    with bundle.closing(fd):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
