"""Pages on disk: what a preempted sequence had cached waits in a file of its own, with a checksum kept in memory.

The files have no name (they are unlinked while open), so that nothing is left behind however the process ends, and
nobody else reads them. Writing and reading go on beside the computing, in one thread; bytes not written yet are
bounded. A disk may do anything: refuse, fill up, stop short, give old or flipped bytes. Then the sequence is computed
again.
"""

import hashlib
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.kv.api import Chunk

LIMIT_BYTES = 8 << 30
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])i?B?)?", re.IGNORECASE)


def open_swap(text: str) -> "SwapFile | None":
    """From what a user says: "none"; "auto" (the system's temporary folder, 8 GiB at most); a folder; a size ("4GiB",
    "500MB"; a bare number is GiB); or both ("FOLDER:4GiB"). Raises BadInput."""
    if text == "none":
        return None
    if text == "auto":
        return SwapFile()
    folder, colon, size = text.rpartition(":")
    if not colon and size_of(text) is not None and not Path(text).is_dir():
        folder, size = "", text
    elif not colon or size_of(size) is None or Path(text).is_dir():
        folder, size = text, ""
    limit = LIMIT_BYTES if not size else size_of(size)
    if not limit:
        raise BadInput(f"swap is '{text}', which leaves no room. Give a size above 0, or 'none' to do without.")
    if not text or (folder and not Path(folder).is_dir()):
        raise BadInput(
            f"swap is '{text}' but must be none, auto, a size such as 4GiB, a folder that exists, or FOLDER:SIZE."
        )
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"Nothing may be written into the swap folder {folder}. Choose another.")
    return SwapFile(folder or None, limit)


def size_of(text: str) -> int | None:
    """Bytes; None when it is no size."""
    match = SIZE.fullmatch(text)
    if match is None:
        return None
    return int(float(match[1]) * 2.0 ** (10 * (1 + "KMGT".index((match[2] or "G").upper()))))


class Disk:
    """The system calls below it; tests put a broken one in its place."""

    def open(self, folder: Path | None) -> int:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as handle:
            return os.dup(handle.fileno())

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        return os.pread(fd, nbytes, offset)

    def close(self, fd: int) -> None:
        os.close(fd)


class Entry:
    """One sequence's pages: in memory until they are written, on disk, or in memory again."""

    __slots__ = ("chunks", "digest", "done", "dropped", "failed", "fd", "length", "reading", "sizes")

    def __init__(self, length: int, chunks: list[Chunk]) -> None:
        self.length = length
        self.chunks: list[Chunk] | None = chunks
        self.sizes = [len(chunk) for chunk in chunks]
        self.digest = b""
        self.fd = -1
        self.failed = self.reading = self.dropped = False
        self.done = threading.Event()  # nothing is under way: `chunks`, `fd` and `failed` can be trusted

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)


class SwapFile:
    """folder: where; None: the system's temporary folder. limit_bytes: on disk at most. staging_bytes: copies in memory
    that wait for the disk; who comes when these are full waits."""

    def __init__(
        self,
        folder: str | Path | None = None,
        limit_bytes: int = LIMIT_BYTES,
        staging_bytes: int = 256 << 20,
        disk: Disk | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and not self.folder.is_dir():
            raise BadInput(f"The swap folder {self.folder} does not exist. Make it, or leave the choice to the system.")
        self.limit_bytes, self.staging_bytes = limit_bytes, staging_bytes
        self.disk = disk or Disk()
        self.stalled_s = 0.0
        self.faults = 0  # of the disk, so far
        self.written_bytes = 0
        self._held = 0  # bytes of all entries
        self._staged = 0
        self._rate = 0.0  # bytes a second, of writes and reads; 0: not measured yet
        self._entries: dict[SeqId, Entry] = {}
        self._changed = threading.Condition()
        self._tasks: queue.SimpleQueue[tuple[str, Entry] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, seq: SeqId, length: int, chunks: Iterable[Chunk]) -> bool:
        """Keeps a copy. False when there is no room for it; the caller then computes again."""
        entry = Entry(length, list(chunks))
        self.drop(seq)
        if self._held + entry.nbytes > self.limit_bytes or entry.nbytes > self.staging_bytes:
            return False
        with self._changed:
            begin = time.monotonic()
            while self._staged + entry.nbytes > self.staging_bytes:
                self._changed.wait()
            self.stalled_s += time.monotonic() - begin
            self._staged += entry.nbytes
            self._held += entry.nbytes
        self._entries[seq] = entry
        self._ask("write", entry)
        return True

    def fetch(self, seq: SeqId) -> None:
        entry = self._entries.get(seq)
        if entry is not None and not entry.reading:
            entry.reading = True
            self._ask("read", entry)

    def take(self, seq: SeqId) -> tuple[int, Sequence[Chunk]] | None:
        entry = self._entries.get(seq)
        if entry is None:
            return None
        self.fetch(seq)
        begin = time.monotonic()
        with self._changed:
            while entry.reading:
                self._changed.wait()
        self.stalled_s += time.monotonic() - begin
        chunks, failed = entry.chunks, entry.failed
        self.drop(seq)
        return None if failed or chunks is None else (entry.length, chunks)

    def drop(self, seq: SeqId) -> None:
        entry = self._entries.pop(seq, None)
        if entry is not None:
            with self._changed:
                self._held -= entry.nbytes
            entry.dropped = True
            self._ask("drop", entry)

    def seconds(self, nbytes: int) -> float:
        """To write and to read them behind what waits already, at the rate measured; before that, at 200 MB/s."""
        return (self._staged + 2 * nbytes) / (self._rate or 2e8)

    def close(self) -> None:
        for seq in list(self._entries):
            self.drop(seq)
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None

    # ── the thread ──────────────────────────────────────────────────────────────────────

    def _ask(self, task: str, entry: Entry) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="edgewise-swap", daemon=True)
            self._thread.start()
        self._tasks.put((task, entry))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            what, entry = task
            try:
                if what == "write":
                    if not entry.dropped:
                        self._write(entry)
                elif what == "read":
                    if not entry.dropped and not entry.failed:
                        self._read(entry)
                elif entry.fd >= 0:
                    self.disk.close(entry.fd)
                    entry.fd = -1
            except Exception:  # OSError, MemoryError, or whatever a file system may think of
                entry.failed, entry.chunks = True, None
                self.faults += 1
            with self._changed:
                if what == "write":
                    self._staged -= entry.nbytes
                elif what == "read":
                    entry.reading = False
                self._changed.notify_all()

    def _write(self, entry: Entry) -> None:
        assert entry.chunks is not None
        begin = time.monotonic()
        digest = hashlib.blake2b(digest_size=16)
        entry.fd = self.disk.open(self.folder)
        for chunk in entry.chunks:
            digest.update(chunk.data)
            rest = chunk.data
            while len(rest):
                count = self.disk.write(entry.fd, rest)
                if count <= 0:
                    raise OSError("nothing was written")
                rest = rest[count:]
        entry.digest = digest.digest()
        entry.chunks = None
        self.written_bytes += entry.nbytes
        self._measured(entry.nbytes, time.monotonic() - begin)

    def _read(self, entry: Entry) -> None:
        begin = time.monotonic()
        digest = hashlib.blake2b(digest_size=16)
        chunks, offset = [], 0
        for size in entry.sizes:
            parts, left = [], size
            while left:
                part = self.disk.read(entry.fd, left, offset)
                if not part:
                    raise OSError("the swap file was cut short")
                parts.append(part)
                left -= len(part)
                offset += len(part)
            chunk = np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)
            digest.update(chunk.data)
            chunks.append(chunk)
        if digest.digest() != entry.digest:
            raise OSError("the swap file gave back other bytes than were written")
        entry.chunks = chunks
        self._measured(entry.nbytes, time.monotonic() - begin)

    def _measured(self, nbytes: int, seconds: float) -> None:
        rate = nbytes / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
