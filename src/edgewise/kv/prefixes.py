"""Known prefixes on disk, so that a server that starts again knows them: one file a page, written beside the computing.

A file is named after the model's fingerprint and the hash of its tokens and all before them; it holds these tokens,
the page's keys and values, and a checksum of everything. It is written under a temporary name and renamed, so that it
is whole or absent however the process ends. Nothing in it is believed: fingerprint, tokens and checksum must be right,
or the page is computed again. When the folder is full the files that were unused longest go, and of a chain the tail
before what it hangs on.
"""

import hashlib
import os
import queue
import re
import secrets
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from edgewise.base import BadInput
from edgewise.kv.api import Chunk
from edgewise.kv.pages import Known
from edgewise.kv.swap import LIMIT_BYTES, size_of

MAGIC = b"edgekv01"
NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.kv")
UNDONE = re.compile(r"\.(\d+)-([0-9a-f]{8})-[0-9a-f]{64}\.part")
TOKEN = secrets.token_hex(4)  # this process, even where ids come again
CHECKSUM = 16  # bytes
STAGING_BYTES = 64 << 20  # copies in memory that wait for the disk
FINGERPRINT = 16  # bytes
LOOK_S = 60.0
MOST_CHAINS, MOST_WARNINGS = 256, 3
STEP_NS = 1_000_000  # between the times of a page and the one before it in its chain


def parse_prefix_cache(text: str) -> tuple[Path, int] | None:
    """From what a user says: "none"; a folder, which is made when missing; or FOLDER:SIZE. Raises BadInput."""
    if text == "none":
        return None
    folder, colon, size = text.rpartition(":")
    limit = size_of(size) if colon and folder and not Path(text).is_dir() else None
    if limit is None:
        folder, limit = text, LIMIT_BYTES
    if not folder or not limit:
        raise BadInput(f"prefix_cache is '{text}' but must be none, a folder, or FOLDER:SIZE with a size above 0.")
    path = Path(folder).expanduser()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"The folder {path} for prefixes cannot be made: {problem.strerror}.") from problem
    if path.stat().st_mode & 0o002:
        raise BadInput(f"Anybody may write into {path}, and could make up what models remember. Choose another folder.")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise BadInput(f"Nothing may be read from or written into the folder {path} for prefixes. Choose another.")
    return path, limit


@runtime_checkable
class Keeping(Protocol):
    """A cache whose known pages can be kept."""

    page_tokens: int
    token_bytes: int
    dtype: str

    def keep_in(self, store: "PrefixStore") -> None: ...

    def keep(self, nbytes: int) -> bool: ...  # hands over about so many bytes; True: there are more


class File(NamedTuple):
    """The older ones come first."""

    time_ns: int
    nbytes: int
    path: str
    own: bool  # of this model
    digest: bytes


class _Page(NamedTuple):
    known: Known
    data: Chunk


class PrefixStore:
    """fingerprint: FINGERPRINT bytes that differ whenever keys and values might. page_bytes: of keys and values.
    limit_bytes: of all files in the folder, those of other models included. again: seconds that computing so many
    tokens takes; 0: not known."""

    def __init__(
        self, folder: Path, fingerprint: bytes, page_bytes: int, limit_bytes: int = LIMIT_BYTES,
        again: Callable[[int], float] = lambda tokens: 0.0, staging_bytes: int = STAGING_BYTES,
    ) -> None:  # fmt: skip
        assert len(fingerprint) == FINGERPRINT
        self.folder, self.fingerprint, self.page_bytes, self.limit_bytes = folder, fingerprint, page_bytes, limit_bytes
        self.staging_bytes = staging_bytes
        self.faults = self.written = self.recalled = self.evicted = 0  # pages
        self._again, self._rate = again, 0.0  # bytes a second of reads; 0: not measured yet
        self._staged = 0
        self._broken = False  # the disk refused: nothing more is written
        self._lock = threading.Lock()
        self._parents: dict[bytes, bytes] = {}  # of pages that were read or written
        self._leaves: dict[bytes, None] = {}  # written, and nothing that hangs on them yet
        self._chains: dict[bytes, Sequence[bytes]] = {}  # used since their files were told, by their last page
        self._tasks: queue.SimpleQueue[_Page | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned = 0
        files = self._files()
        self._total, self._looked = sum(file.nbytes for file in files), time.monotonic()
        self._known = {file.digest for file in files if file.own}
        self._sweep()

    # ── from the engine ─────────────────────────────────────────────────────────────────

    def has(self, digest: bytes) -> bool:
        return digest in self._known

    def has_room(self) -> bool:
        """Whether a page may be put now without much waiting in memory."""
        return self._broken or self._staged + self.page_bytes <= self.staging_bytes

    def put(self, known: Known, data: Chunk) -> None:
        """data: a copy."""
        if self._broken or self._size(known) > self.limit_bytes:
            return
        with self._lock:
            self._staged += self.page_bytes
        self._known.add(known.digest)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="edgewise-prefixes", daemon=True)
            self._thread.start()
        self._tasks.put(_Page(known, data))

    def read(self, known: Known) -> Chunk | None:
        """The page's keys and values. None: they are not there, or not right; they are forgotten then."""
        begin, path = time.monotonic(), self._path(known.digest)
        try:
            raw = _whole(path, self._size(known))
        except FileNotFoundError:  # not written yet, or somebody else needed the room
            self._known.discard(known.digest)
            return None
        except OSError as problem:
            self._lost(known, f"{path} cannot be read ({problem.strerror}).")
            return None
        head = self._head(known)
        if _checksum([raw[:-CHECKSUM]]) != raw[-CHECKSUM:]:
            gone = " and was deleted" if self._remove(path) else ""
            self._lost(known, f"{path} is damaged{gone}.")
            return None
        if raw[: len(head)] != head:
            self._lost(known, f"{path} holds something else than its name says.")
            return None
        self._parents[known.digest] = known.parent
        self.recalled += 1
        seconds = max(time.monotonic() - begin, 1e-6)
        self._rate = len(raw) / seconds if not self._rate else 0.8 * self._rate + 0.2 * len(raw) / seconds
        return np.frombuffer(raw, np.uint8)[len(head) : -CHECKSUM]

    def pays(self, pages: int, tokens: int) -> bool:
        """Whether reading so many pages takes less than computing their tokens, as far as both were measured."""
        again = self._again(tokens)
        return again == 0 or not self._rate or pages * self.page_bytes / self._rate < again

    def used(self, chain: Sequence[bytes]) -> None:
        """Its pages were asked for, wherever they came from."""
        if chain:
            with self._lock:
                self._chains[chain[-1]] = tuple(chain)
                if len(self._chains) > MOST_CHAINS:
                    del self._chains[next(iter(self._chains))]

    def close(self, seconds: float | None = None) -> None:
        """Returns when everything is written, or after so long; what is missing then is computed again one day."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(seconds)
            self._thread = None
        self._stamp()

    def _lost(self, known: Known, why: str) -> None:
        self._known.discard(known.digest)
        self.faults += 1
        self._warn(f"{why} Its tokens are computed again.")

    def _warn(self, text: str) -> None:
        self._warned += 1
        if self._warned <= MOST_WARNINGS:
            warnings.warn(f"Prefix cache: {text}", stacklevel=2)

    # ── files ───────────────────────────────────────────────────────────────────────────

    def _path(self, digest: bytes) -> Path:
        return self.folder / f"{self.fingerprint.hex()}-{digest.hex()}.kv"

    def _head(self, known: Known) -> bytes:
        return MAGIC + self.fingerprint + known.digest + known.parent.rjust(len(known.digest), b"\0") + known.tokens

    def _size(self, known: Known) -> int:
        return len(self._head(known)) + self.page_bytes + CHECKSUM

    def _files(self) -> list[File]:
        """All pages in the folder, of whatever model."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                match = NAME.fullmatch(entry.name)
                try:
                    if match is not None and entry.is_file(follow_symlinks=False):
                        status = entry.stat()
                        own, digest = bytes.fromhex(match[1]) == self.fingerprint, bytes.fromhex(match[2])
                        found.append(File(status.st_mtime_ns, status.st_size, entry.path, own, digest))
                except FileNotFoundError:
                    continue
        return found

    def _sweep(self) -> None:
        """What a process that was killed had begun to write goes; what is nobody's is left alone."""
        foreign = 0
        for path in self.folder.iterdir():
            match = UNDONE.fullmatch(path.name)
            if match is not None:
                if match[2] != TOKEN and (int(match[1]) == os.getpid() or not _runs(int(match[1]))):
                    path.unlink(missing_ok=True)
            elif NAME.fullmatch(path.name) is None:
                foreign += 1
        if foreign:
            self._warn(f"{foreign} files in {self.folder} are none of edgewise's; they are left alone.")

    # ── the thread ──────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while (page := self._tasks.get()) is not None:
            try:
                if not self._broken:
                    self._make_room(self._size(page.known))
                    self._write(page)
                    with self._lock:
                        self._parents[page.known.digest] = page.known.parent
                        self._leaves.pop(page.known.parent, None)
                        self._leaves[page.known.digest] = None
                    self._known.add(page.known.digest)
                    self.written += 1
            except Exception as problem:  # a full disk, or whatever a file system may think of
                self._known.discard(page.known.digest)
                self._broken = True
                self.faults += 1
                said = getattr(problem, "strerror", None) or str(problem)
                self._warn(f"nothing more is written into {self.folder} ({said}).")
            with self._lock:
                self._staged -= self.page_bytes
            if self._tasks.empty():
                self._stamp()

    def _write(self, page: _Page) -> None:
        path, known = self._path(page.known.digest), page.known
        undone = self.folder / f".{os.getpid()}-{TOKEN}-{known.digest.hex()}.part"
        head = self._head(known)
        try:
            handle = os.open(undone, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                for part in (head, page.data.data, _checksum([head, page.data.data])):
                    out.write(part)
            undone.rename(path)
        except BaseException:
            with suppress(OSError):
                undone.unlink(missing_ok=True)
            raise
        self._total += self._size(known)

    def _make_room(self, nbytes: int) -> None:
        """Looks again when it is full, or has not looked for long: others may write here, too."""
        if self._total + nbytes <= self.limit_bytes and time.monotonic() - self._looked < LOOK_S:
            return
        self._stamp()
        files = sorted(self._files())
        self._total, self._looked = sum(file.nbytes for file in files), time.monotonic()
        most = self.limit_bytes - nbytes
        if self._total > most:
            most = max(0, min(most, self.limit_bytes * 9 // 10))  # so that it is not full again at once
        for file in files:
            if self._total <= most:
                return
            if self._remove(Path(file.path)):
                self._total -= file.nbytes
                self.evicted += 1
                if file.own:
                    self._known.discard(file.digest)

    def _stamp(self) -> None:
        """Tells the files of chains that were used or written: what a page hangs on is newer than the page."""
        with self._lock:
            chains, self._chains = list(self._chains.values()), {}
            leaves, self._leaves = list(self._leaves), {}
            for leaf in leaves:
                up = []
                while leaf:
                    up.append(leaf)
                    leaf = self._parents.get(leaf, b"")
                chains.append(up[::-1])
        now, times = time.time_ns(), dict[bytes, int]()
        for chain in chains:
            for at, digest in enumerate(chain):
                times.setdefault(digest, now - at * STEP_NS)
        for digest, at in times.items():
            if digest in self._known:
                with suppress(OSError):
                    os.utime(self._path(digest), ns=(at, at))

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except OSError:
            return False
        return True


def _whole(path: Path, size: int) -> bytes:
    """Of a plain file; b"" where it has not exactly that size."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        return file.read(size) if stat.S_ISREG(found.st_mode) and found.st_size == size else b""


def _checksum(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.blake2b(digest_size=CHECKSUM)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
