"""`WeightStore`: the weights that do not all fit. It knows which bundles are here, and makes room for those asked for.

A bundle is what arrives together: an expert, or a layer. The store has a fixed number of equal slots; `pin` says
"these, now", `hint` says "these, probably soon". Threads of its own read; the engine's thread alone calls pin and hint.
A wrong guess never costs a pinned bundle its slot, and what is being read already is never given up (EdgeMoE's rule).
All bookkeeping is O(1) a bundle, but for what a residency does to find who leaves.
"""

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgewise.base import BadInput, OutOfRoom
from edgewise.kernels.api import Bundle, Ints, Slots
from edgewise.kernels.checksums import xxh64
from edgewise.weights.api import Extent, Key, Residency, Source

ABSENT, QUEUED, LOADING, PRESENT, FAILED = range(5)


@dataclass(frozen=True)
class Piece:
    """A run of bytes of a bundle, read at once. part: stored rows from `row` on, in the order `index`, to be packed;
    -1: bytes that go to `at` in the slot as they are. checksum: their XXH64, when it is known."""

    extent: Extent
    offset: int
    nbytes: int
    part: int = -1
    row: int = 0
    index: Ints | None = None
    at: int = 0
    checksum: int | None = None


@dataclass(frozen=True)
class Stored:
    """A bundle and where its bytes are."""

    key: Key
    bundle: Bundle
    pieces: Sequence[Piece]

    @property
    def whole(self) -> bool:
        """It is stored as it will lie."""
        return self.pieces[0].part < 0


@dataclass
class Counts:
    """What happened since the store was made. A hit was here when asked for; late: on its way, thanks to a hint."""

    hits: int = 0
    late: int = 0
    misses: int = 0
    hinted: int = 0
    hinted_used: int = 0
    evicted: int = 0
    bytes_read: int = 0
    reading_s: float = 0.0  # time in which at least one reader read
    waited_s: float = 0.0  # of callers of `wait`

    @property
    def asked(self) -> int:
        return self.hits + self.late + self.misses

    @property
    def hit_rate(self) -> float:
        return self.hits / self.asked if self.asked else 0.0


@dataclass
class _Load:
    """A bundle on its way."""

    left: int  # pieces not read yet
    next: int = 0  # piece to be begun
    error: BaseException | None = None
    hint: bool = False


class WeightStore:
    """stored: every bundle there is; its number in this list is its key. slots: where they come to lie.

    source: where bytes come from. residency: who leaves. readers: threads that read. Close it at the end.
    """

    def __init__(
        self, stored: Sequence[Stored], slots: Slots, source: Source, residency: Residency, *, readers: int = 4
    ) -> None:
        self.stored = tuple(stored)
        self.slots = slots
        self.source = source
        self.residency = residency
        self.counts = Counts()
        count = len(self.stored)
        self._state = [ABSENT] * count
        self._slot = [-1] * count
        self._pins = [0] * count
        self._hinted = [False] * count
        self._sums: dict[tuple[int, int], int] = {}
        self._free = list(range(slots.count))[::-1]
        self._loads: dict[int, _Load] = {}
        self._errors: dict[int, BaseException] = {}
        self._urgent: deque[int] = deque()
        self._later: deque[int] = deque()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # something is to be read, or it is over
        self._moved = threading.Condition(self._lock)  # a bundle arrived or failed
        self._reading, self._since = 0, 0.0
        self._closing = False
        self._threads = [
            threading.Thread(target=self._read_on, name=f"edgewise-read-{i}", daemon=True) for i in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    # ── what the engine's thread asks ───────────────────────────────────────────────────

    @contextmanager
    def pin(self, keys: Sequence[int], *, wait: bool = True) -> Iterator[None]:
        """Keeps bundles here while the block runs; begins to read those that are not.

        wait=False: for who waits himself, one bundle after the other, as `Device.moe` does. Raises BadInput when one of
        them could not be read, OutOfRoom when there are more than slots.
        """
        asked = list(dict.fromkeys(keys))
        taken = self._take(asked)
        try:
            if taken < len(asked):
                raise OutOfRoom(f"{len(asked)} bundles of weights are wanted at once, but there is room for {taken}.")
            if wait:
                self.wait(asked)
            try:
                yield
            except BadInput:
                self.wait(asked)  # says which read failed, and why
                raise
        finally:
            self._release(asked[:taken])

    def wait(self, keys: Sequence[int]) -> None:
        """Until all of these, which are pinned, are here. Raises BadInput: what went wrong with one that is not."""
        begin = time.perf_counter()
        with self._lock:
            for key in keys:
                while self._state[key] in (QUEUED, LOADING):
                    self._moved.wait()
                if self._state[key] == FAILED:
                    raise BadInput(str(self._errors[key]))
            self.counts.waited_s += time.perf_counter() - begin

    def here(self, keys: Sequence[int]) -> bool:
        """Whether none of these is still on its way."""
        with self._lock:
            return not any(self._state[key] in (QUEUED, LOADING) for key in keys)

    def hint(self, keys: Sequence[int]) -> None:
        """These will be wanted soon, the first ones first. Never blocks; does nothing when there is no room."""
        with self._lock:
            for key in keys:
                if self._state[key] == ABSENT and not self._begin(key, hint=True):
                    break

    def held(self) -> Collection[int]:
        """Keys of the bundles that are here."""
        with self._lock:
            return [key for key, state in enumerate(self._state) if state == PRESENT]

    def view(self, key: int) -> memoryview:
        """The bytes of a bundle that is pinned and here."""
        return self.slots.view(self._slot[key]).data

    def drop_all(self) -> None:
        """Forgets what nobody has pinned; waits for what is being read."""
        with self._lock:
            while self._loads:
                self._moved.wait()
            for key, state in enumerate(self._state):
                if state == PRESENT and not self._pins[key]:
                    self._evict(key)

    def close(self) -> None:
        """Ends the readers. Nobody may have anything pinned, nor use a bundle afterwards."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
        for thread in self._threads:
            thread.join()
        self.source.close()

    # ── bookkeeping, under the lock ─────────────────────────────────────────────────────

    def _take(self, keys: Sequence[int]) -> int:
        """Pins keys and begins to read what is absent; how many could be taken."""
        counts = self.counts
        with self._lock:
            for key in keys:  # those that are here first: making room must not cost one of them its slot
                self._pins[key] += 1
            for at, key in enumerate(keys):
                state = self._state[key]
                if state == FAILED:  # a guess that failed, or another caller's: once more
                    self._leave(key)
                    state = ABSENT
                if state == PRESENT:
                    counts.hits += 1
                    counts.hinted_used += self._hinted[key]
                    self._hinted[key] = False
                elif state == ABSENT:
                    counts.misses += 1
                    while not self._begin(key, hint=False):
                        if not self._wait_for_room():
                            for other in keys[at:]:
                                self._pins[other] -= 1
                            return at
                else:
                    counts.late += 1
                    counts.hinted_used += self._hinted[key]
                    self._hinted[key] = False
                    self._urgent.append(key)
                    self._work.notify_all()
                self.residency.used(key)
        return len(keys)

    def _begin(self, key: int, *, hint: bool) -> bool:
        """Gives an absent bundle a slot and puts it into a queue. False: nobody may leave."""
        if not self._free:
            victim = self.residency.victim(key, not hint, self._may_leave)
            if victim is None:
                return False
            self._evict(victim)
        slot = self._free.pop()
        stored = self.stored[key]
        stored.bundle.come(self.slots, slot, stored.whole)
        self._slot[key], self._state[key] = slot, QUEUED
        self._loads[key] = _Load(len(stored.pieces), hint=hint)
        self._hinted[key] = hint
        self.counts.hinted += hint
        self.residency.came(key)
        (self._later if hint else self._urgent).append(key)
        self._work.notify_all()
        return True

    def _may_leave(self, key: int) -> bool:
        if self._pins[key]:
            return False
        state = self._state[key]
        return state == PRESENT or (state == QUEUED and self._loads[key].hint)

    def _evict(self, key: int) -> None:
        self._loads.pop(key, None)  # a guess that nobody began to read
        self.counts.evicted += 1
        self._leave(key)

    def _leave(self, key: int) -> None:
        self.stored[key].bundle.leave()
        self._free.append(self._slot[key])
        self._slot[key], self._state[key] = -1, ABSENT
        self._hinted[key] = False
        self._errors.pop(key, None)
        self.residency.left(key)

    def _wait_for_room(self) -> bool:
        """Waits until something that nobody has pinned arrives, and may leave then. False: there is no such thing."""
        if not any(not self._pins[key] for key in self._loads):
            return False
        self._moved.wait()
        return True

    def _release(self, keys: Sequence[int]) -> None:
        with self._lock:
            for key in keys:
                self._pins[key] -= 1
                if self._pins[key]:
                    continue
                if self._state[key] == FAILED:
                    self._leave(key)
                elif self._state[key] == PRESENT and not self.residency.keeps:
                    self._evict(key)

    # ── the readers ─────────────────────────────────────────────────────────────────────

    def _read_on(self) -> None:
        while True:
            with self._lock:
                while (job := self._next()) is None:
                    if self._closing:
                        return
                    self._work.wait()
                key, at = job
                if not self._reading:
                    self._since = time.perf_counter()
                self._reading += 1
            error: BaseException | None = None
            try:
                self._read(key, at)
            except BaseException as problem:
                error = problem
            self._done(key, at, error)

    def _next(self) -> tuple[int, int] | None:
        """The next piece to read: what is pinned before what was guessed."""
        for queue in (self._urgent, self._later):
            while queue:
                key = queue[0]
                load = self._loads.get(key)
                if load is None or load.next == len(self.stored[key].pieces):
                    queue.popleft()
                    continue
                self._state[key] = LOADING
                load.next += 1
                return key, load.next - 1
        return None

    def _read(self, key: int, at: int) -> None:
        stored = self.stored[key]
        piece = stored.pieces[at]
        if piece.part < 0:
            into = self.slots.view(self._slot[key]).data[piece.at : piece.at + piece.nbytes]
            self.source.read_into(piece.extent, piece.offset, into)
            self._check(key, at, into)
        else:
            data = self.source.glance(piece.extent, piece.offset, piece.nbytes)
            self._check(key, at, data)
            stored.bundle.pack(piece.part, piece.row, data, piece.index)

    def _check(self, key: int, at: int, data: memoryview) -> None:
        """Compares with the checksum of the file; of a file without any, with that of the first reading."""
        piece, found = self.stored[key].pieces[at], xxh64(data)
        wanted = piece.checksum if piece.checksum is not None else self._sums.setdefault((key, at), found)
        if found != wanted:
            name = self.stored[key].key
            raise BadInput(
                f"{name}: the {piece.nbytes} bytes at byte {piece.extent.offset + piece.offset} of the file do not "
                f"have their checksum ({found:016x}, not {wanted:016x}). The disk or the memory is at fault; "
                "compare the file with its origin."
            )

    def _done(self, key: int, at: int, error: BaseException | None) -> None:
        with self._lock:
            self._reading -= 1
            now = time.perf_counter()
            self.counts.reading_s += now - self._since
            self._since = now
            self.counts.bytes_read += self.stored[key].pieces[at].nbytes
            load = self._loads[key]
            load.error = load.error or error
            load.left -= 1
            if load.left:
                return
            del self._loads[key]
            bundle = self.stored[key].bundle
            if load.error is None:
                self._state[key] = PRESENT
                bundle.arrive(True)
            else:
                self._state[key] = FAILED
                self._errors[key] = load.error
                bundle.arrive(False)
                if not self._pins[key]:  # a guess: whoever wants it will hear of it
                    self._leave(key)
            self._moved.notify_all()
