"""`NeuronStore`: neurons that do not all fit. A neuron's rows of gate and up and its column of down lie together in
the file, come to one slot together and leave it together. What `store.WeightStore` does for bundles of megabytes, this
does for thousands of bundles of kilobytes a token: keys are arrays, and one native call reads all that is missing.
"""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, OutOfRoom
from edgewise.kernels.api import Ints, Slots
from edgewise.kernels.checksums import xxh64
from edgewise.kernels.neurons import differs, scatter
from edgewise.weights.api import Extent, Keys, NeuronResidency, Source

PAGE = 4096
READ_BYTES = 1 << 20  # of one read, where neurons lie one after the other
THREADS = 16  # reads on their way: a disk serves small ones side by side


@dataclass(frozen=True)
class LaidNeurons:
    """One layer's neurons: `count` of `step` bytes from the extent's begin on, each a gate row, an up row and a down
    column of `dim` values. sums (count, 2): the XXH64 of the gate row, and of the rest."""

    layer: int
    extent: Extent
    count: int
    dim: int
    format: str
    step: int
    row_bytes: int
    sums: npt.NDArray[np.uint64]

    @property
    def gate_apart(self) -> bool:
        """Up and down can be read without the gate."""
        return self.row_bytes % PAGE == 0


@dataclass
class RowCounts:
    """What happened since the store was made. Neurons are counted once for each pass that asks for them."""

    tokens: int = 0
    asked: int = 0
    read: int = 0  # neurons
    reads: int = 0  # of the disk
    bytes_read: int = 0
    waited_s: float = 0.0  # for reads
    books_s: float = 0.0  # who is here, who leaves

    @property
    def hit_rate(self) -> float:
        return 1.0 - self.read / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class Brought:
    """Neurons that have a slot each; `rest`: what remains to be read into it."""

    keys: Keys
    places: Ints
    rest: "Future[None] | None"

    def wait(self) -> None:
        if self.rest is not None:
            self.rest.result()


class NeuronStore:
    """laid: the layers. slots: of at least a neuron's step. stay: the share of every layer that never leaves, as the
    half of the model that "half-resident" keeps. whole: nothing that does not stay outlives the pass (naive reload).
    gates: False: gate rows are never wanted. apart: a neuron's rows are read one by one, as if they lay apart."""

    def __init__(
        self, laid: Sequence[LaidNeurons], slots: Slots, source: Source, residency: NeuronResidency, *,
        gates: bool = True, stay: float = 0.0, whole: bool = False, apart: bool = False,
    ) -> None:  # fmt: skip
        self.laid = {one.layer: one for one in laid}
        self.slots, self.source, self.residency = slots, source, residency
        self.counts = RowCounts()
        self.whole, self.apart, self.stay = whole, apart, stay
        self.gates = gates or not all(one.gate_apart for one in laid)
        self.up_at = laid[0].row_bytes if self.gates else 0  # in a slot
        self._first, total = {}, 0
        for one in laid:
            self._first[one.layer] = total
            total += one.count
        self._place = np.full(total, -1, np.int32)
        self._pinned = np.zeros(total, np.bool_)
        self._stays = np.zeros(total, np.bool_)
        for one in laid:
            self._stays[self._first[one.layer] : self._first[one.layer] + int(stay * one.count)] = True
        self._free: npt.NDArray[np.int32] = np.arange(slots.count, dtype=np.int32)[::-1].copy()
        self._left = slots.count
        self._own = [(np.ascontiguousarray(one.sums[:, 0]), np.ascontiguousarray(one.sums[:, 1])) for one in laid]
        self._at = {one.layer: number for number, one in enumerate(laid)}
        self._reader = ThreadPoolExecutor(1, "edgewise-neurons")
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return len(self._place)

    def next_token(self) -> None:
        """A pass begins: the window moves."""
        begin = time.perf_counter()
        self.residency.token += 1
        self.counts.tokens += 1
        self._drop(self.residency.expired(self._pinned))
        self.counts.books_s += time.perf_counter() - begin

    def bring(self, layer: int, ids: Ints) -> Brought:
        """Slots for these neurons of a layer, ascending; what is absent is on its way. They stay until `release`.
        Raises OutOfRoom when too many are held."""
        begin = time.perf_counter()
        keys = self._first[layer] + ids.astype(np.int64)
        self._pinned[keys] = True
        self.residency.use(keys)
        missing = ids[self._place[keys] < 0]
        if len(missing) > self._left:
            # some more than needed, so that it is not done again for the next few
            want = len(missing) - self._left
            self._drop(self.residency.oldest(max(want, self.slots.count >> 6), self._pinned))
        if len(missing) > self._left:
            self._pinned[keys] = False
            raise OutOfRoom(f"{len(ids)} neurons are wanted at once, but there is room for {self._left}.")
        coming = self._first[layer] + missing.astype(np.int64)
        places = np.sort(self._free[self._left - len(missing) : self._left])
        self._left -= len(missing)
        self._place[coming] = places
        self.residency.come(coming)
        self.counts.asked += len(ids)
        self.counts.read += len(missing)
        self.counts.books_s += time.perf_counter() - begin
        rest = self._reader.submit(self._read, layer, missing, places) if len(missing) else None
        return Brought(keys, self._place[keys], rest)

    def wait(self, brought: Brought) -> None:
        """Until all of them are here. Raises BadInput when one could not be read; then none of these counts as here."""
        begin = time.perf_counter()
        try:
            brought.wait()
        except BaseException:
            self.release(brought)
            self._drop(brought.keys)  # some of them were: they are read again
            raise
        finally:
            self.counts.waited_s += time.perf_counter() - begin

    def release(self, brought: Brought) -> None:
        stays = self._stays[brought.keys]
        self._pinned[brought.keys] = stays
        if self.whole:
            self._drop(brought.keys[~stays])

    def held(self) -> int:
        return int((self._place >= 0).sum())

    def drop_all(self) -> None:
        """Forgets what nobody has pinned."""
        self._drop(np.flatnonzero((self._place >= 0) & ~self._pinned))

    def finish(self) -> None:
        """Nothing more is asked of it."""
        self._reader.shutdown()

    def close(self) -> None:
        self.finish()
        self.source.close()

    def _drop(self, keys: Keys) -> None:
        keys = keys[self._place[keys] >= 0]
        if not len(keys):
            return
        self._free[self._left : self._left + len(keys)] = self._place[keys]
        self._left += len(keys)
        self._place[keys] = -1
        self.residency.leave(keys)

    # ── reading ─────────────────────────────────────────────────────────────────────────

    def _read(self, layer: int, ids: Ints, places: Ints) -> None:
        laid = self.laid[layer]
        gate, rest = self._own[self._at[layer]]
        row = laid.row_bytes
        if self.apart:
            first = 0 if self.gates else 1
            for part in range(first, 3):
                self._scatter(laid, ids, places, part * row, (part - first) * row, row, None)
        elif not self.gates:
            self._scatter(laid, ids, places, row, 0, 2 * row, rest)
        else:
            self._scatter(laid, ids, places, 0, 0, laid.step, None)
            self._check(laid, ids, places, 0, row, gate)
            self._check(laid, ids, places, row, 2 * row, rest)

    def _scatter(
        self, laid: LaidNeurons, ids: Ints, places: Ints, at: int, into: int, nbytes: int, sums: Any
    ) -> None:  # fmt: skip
        """Bytes [at, at + nbytes) of every neuron come to byte `into` of its slot."""
        found = getattr(self.source, "descriptor", lambda file: None)(laid.extent.file)
        if found is None:  # a source that does more than read
            for number, place in zip(ids.tolist(), places.tolist(), strict=True):
                room = self.slots.view(place).data[into : into + nbytes]
                self.source.read_into(laid.extent, number * laid.step + at, room)
            reads, failed = len(ids), -1
            if sums is not None:
                self._check(laid, ids, places, into, nbytes, sums)
        else:
            fd, name = found
            reads, failed, got, error, wrong = scatter(
                fd, laid.extent.offset + at, laid.step, ids, self.slots, places, into, nbytes, sums, THREADS, READ_BYTES
            )
            if failed >= 0 and wrong:
                raise BadInput(_wrong(laid, int(ids[failed]), at, nbytes))
            if failed >= 0:
                why = f"failed: {os.strerror(error)}" if error else f"gave only {got}: it was cut short"
                start = laid.extent.offset + int(ids[failed]) * laid.step + at
                raise BadInput(f"{name}: reading {nbytes} bytes at byte {start} {why}.")
        with self._lock:
            self.counts.reads += reads
            self.counts.bytes_read += len(ids) * nbytes

    def _check(self, laid: LaidNeurons, ids: Ints, places: Ints, at: int, nbytes: int, sums: Any) -> None:
        if (bad := differs(self.slots, places, at, nbytes, ids, sums)) >= 0:
            raise BadInput(_wrong(laid, int(ids[bad]), at, nbytes))


def _wrong(laid: LaidNeurons, neuron: int, at: int, nbytes: int) -> str:
    return (
        f"layer {laid.layer}, neuron {neuron}: the {nbytes} bytes at byte "
        f"{laid.extent.offset + neuron * laid.step + at} of the file do not have their checksum. The disk or the "
        "memory is at fault; compare the file with its origin."
    )


def sums_of(rows: npt.NDArray[np.uint8], row_bytes: int) -> npt.NDArray[np.uint64]:
    """(neurons, 2): of the gate row and of the rest, of neurons (neurons, step)."""
    found = [(xxh64(one[:row_bytes].data), xxh64(one[row_bytes : 3 * row_bytes].data)) for one in rows]
    return np.array(found, np.uint64).reshape(-1, 2)
