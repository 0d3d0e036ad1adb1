"""The CPU device: csrc's kernels on our own threads, the best ISA table this machine has.

Paper:  none (the layout follows the INT4 CPU inference line of work, arXiv 2311.00502)
Exact.  One kernel table gives the same bits for any batch, chunk, page size and thread count; so do all tables.
Needs:  the compiled extension
Cost:   weights are held once, repacked (stored size, plus under 2 %); formats without kernels are widened to F32
Status: kept
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise import _native
from edgewise.base import BadInput
from edgewise.base.limits import memory_bytes
from edgewise.kernels import formats, lookup
from edgewise.kernels.api import Array, DeviceInfo, Floats, Ints, Place, ReadAt, Routing, Weight
from edgewise.kernels.choices import Known, nothing_known
from edgewise.kernels.tuning import Knobs, Matmul, Seen

# Formats that compute from their blocks.
DIRECT = ("F32", "F16", "BF16", *formats.FLOAT8, "Q4_0", "Q8_0", "Q4_K", "Q6_K", *formats.OWN)
CHUNK_BYTES = 8 << 20  # of the file in flight while a weight is repacked


class CpuDevice(_native.CpuCore):
    """threads: None takes the physical cores that this process may use. isa: a kernel table, one of tables(); else
    EDGEWISE_ISA, else the best one.

    Verbs that are missing here are methods of the native class. Not usable in a child process after fork().
    """

    def __init__(self, threads: int | None = None, isa: str = "") -> None:
        chosen = _native.usable_cores() if threads is None else threads
        super().__init__(chosen, isa or os.environ.get("EDGEWISE_ISA", ""))
        self.info = DeviceInfo("cpu", self.isa, self.threads, memory_bytes())
        self.notes: list[str] = []  # what a user should know about this load
        self._jobs: list[tuple[Any, Place]] = []  # loads put off
        self.known: Known = nothing_known  # what was measured on this machine
        self._held, self._cache = 0, lookup.last_cache_bytes()
        if self.isa in lookup.USUAL:
            for fmt in lookup.FORMATS:
                self.set_lookup(fmt, lookup.usual(self.isa, fmt))

    def consult(self, known: Known) -> None:
        """From now on, where kernels with equal results compete, the one that `known` names is taken."""
        self.known = known
        for fmt in lookup.FORMATS:
            if (least := lookup.least_rows(known, fmt)) is not None:
                self.set_lookup(fmt, least)

    def matmuls(self) -> Sequence[Seen]:
        return [Seen(Matmul(*row[:4]), *row[4:]) for row in _native._matmuls(self)]

    def weights_of(self, matmul: Matmul) -> Sequence[Weight]:
        return _native._weights(self, matmul.format, matmul.rows, matmul.cols)

    def standard(self, matmul: Matmul) -> Knobs:
        return _native._standard_tuning(self, *matmul)

    def tune(self, matmul: Matmul, knobs: Knobs) -> None:
        _native._tune(self, *matmul, {**_native._standard_tuning(self, *matmul), **knobs})

    def load(
        self, shape: Sequence[int], fmt: str, read: ReadAt, rows: Ints | None = None, place: Place | None = None, *,
        scales: Floats | None = None, into: str | None = None,
    ) -> Weight:
        """Repacks a stored (out, in) tensor: when `filling` runs, or, without a place or a kernel for the format, now,
        a few megabytes at a time. Raises BadInput, OutOfRoom, Unsupported."""
        if len(shape) != 2:
            raise BadInput(f"A weight has two dimensions but this one has shape {tuple(shape)}.")
        stored_rows, cols = int(shape[0]), int(shape[1])
        spec = formats.find(fmt)
        if cols % spec.block:
            raise BadInput(f"{fmt} stores blocks of {spec.block} weights, but a row of this tensor has {cols}.")
        row_bytes = formats.nbytes(fmt, cols)
        held = spec.name if into is None else formats.find(into).name
        formats.nbytes(held, cols)  # whole blocks
        widen = held.partition(":")[0] not in DIRECT
        if widen and (note := f"{fmt} is widened to F32 at load.") not in self.notes:
            self.notes.append(note)
        order = None if rows is None else np.ascontiguousarray(rows, dtype=np.int32)
        if order is not None and order.size and not (order.min() >= 0 and order.max() < stored_rows):
            raise BadInput(f"rows selects outside the tensor's {stored_rows} rows.")
        count = stored_rows if order is None else len(order)
        weight = self._new_weight(count, cols, "F32" if widen else held)
        self._held += weight.nbytes
        self._set_streams(self._held > self._cache)
        if scales is not None:
            if scales.shape != (stored_rows, -(-cols // formats.SPAN)):
                raise BadInput(f"Scales of shape {scales.shape} do not belong to a weight of shape {tuple(shape)}.")
            scales = np.ascontiguousarray(scales if order is None else scales[order], np.float32)
        source = "" if held == spec.name else spec.name
        if place is not None and not widen:
            self._jobs.append((_native.fill_job(weight, place.fd, place.offset, order, scales, source), place))
            return weight
        step = max(16, CHUNK_BYTES // (4 * cols if widen or source else row_bytes) // 16 * 16)
        for start in range(0, count, step):
            wanted = np.arange(start, min(start + step, count), dtype=np.int32) if order is None \
                else order[start : start + step]
            stored, index = _gather(read, wanted, row_bytes)
            factors = None if scales is None else scales[start : start + step]
            if widen or source:
                values = formats.dequantize(fmt, stored, len(stored) // row_bytes * cols, self.threads)
                if factors is not None:
                    values = values.reshape(-1, cols)[index] * np.repeat(factors, formats.SPAN, axis=1)[:, :cols]
                    index, factors = np.arange(len(index), dtype=np.int32), None
                stored = (values if widen else formats.quantize(held, values, self.threads)).reshape(-1).view(np.uint8)
            self._pack(weight, start // 16, stored, index, factors)
        return weight

    def filling(self) -> "CpuFilling":
        jobs, self._jobs = self._jobs, []
        return CpuFilling(self, jobs)

    def set_lookup(self, fmt: str, least_rows: Sequence[int | None]) -> None:
        """From how many rows on weights of a format are multiplied by table lookup, for each range of columns
        (choices.RANGES). None: never. The rows of all weights that meet the same activations count together.

        Speed changes and bits do not, but for int4: allowing lookup anywhere rounds its activations coarser everywhere.
        """
        self._set_lookup(formats.find(fmt).name, [sys.maxsize if n is None else n for n in least_rows])

    def slots(self, count: int, nbytes: int) -> _native.Slots:
        """Places for bundles; raises OutOfRoom. Memory is taken when a slot is first written to."""
        self._set_streams(True)
        return _native.Slots(count, nbytes)

    def bundle(self) -> _native.Bundle:
        return _native.Bundle(self)

    def packs(self, fmt: str) -> bool:
        """Whether stored rows of this format can be packed by themselves, without scales and without being widened."""
        return formats.find(fmt).name.partition(":")[0] in DIRECT and fmt not in formats.FLOAT8

    def stalled_s(self) -> float:
        return float(_native._stalled(self)) / 1e9 / self.threads

    def activations(self, room_bytes: int | None = None) -> int:
        """The most bytes that activations and logits took since the last call. From now on freed ones are given back
        before all of them take more than room_bytes."""
        return _native._blocks(self, room_bytes)

    def top_k(self, logits: Array, k: int, kind: str, renormalise: bool) -> Routing:
        return Routing(*self._top_k(logits, k, kind, renormalise))

    def moe(self, x: Array, routing: Routing, gate: Weight, up: Weight, down: Weight, act: str) -> Array:
        return self._moe(x, routing.ids, routing.weights, gate, up, down, act)

    def meter(self, on: bool) -> tuple[int, int]:
        """Nanoseconds inside verbs and inside replayed steps since the last call. Counts from now on, or no more."""
        return _native._meter(self, on)

    def record(self, ids: Ints, positions: Ints, outputs: Ints, plan: Any) -> _native.Recording:
        return _native._record(self, ids, positions, outputs, plan)

    def __repr__(self) -> str:
        return f"CpuDevice(threads={self.threads})"


def tables() -> list[str]:
    """The kernel tables that this CPU can run, best last."""
    return _native.runnable_isas()


class CpuFilling:
    """Reads and repacks many weights in one parallel region, without the interpreter's lock."""

    def __init__(self, device: CpuDevice, jobs: Sequence[tuple[Any, Place]]) -> None:
        self._device = device
        self._paths = [place.path for _, place in jobs]
        self._filling = _native.Filling([job for job, _ in jobs])

    def run(self) -> None:
        """Raises BadInput naming file and offset when bytes cannot be read."""
        self._filling.run(self._device)
        if self._filling.failure is not None:
            job, offset, wanted, got, words = self._filling.failure
            why = f"failed: {words}" if words else f"gave only {got}: it was cut short"
            raise BadInput(f"{self._paths[job]}: reading {wanted} bytes at byte {offset} {why}.")

    def stop(self) -> None:
        self._filling.stop()

    def settle(self, nbytes: int) -> bool:
        return bool(_native.Filling.settle(self._device, nbytes))


def _gather(read: ReadAt, wanted: Ints, row_bytes: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Ints]:
    """The stored bytes that hold the wanted rows, and each wanted row's place in them."""
    low, high = int(wanted.min()), int(wanted.max()) + 1
    if high - low <= 2 * len(wanted):  # one read, perhaps with a few rows too many
        return _bytes(read(low * row_bytes, (high - low) * row_bytes)), wanted - np.int32(low)
    stored = np.empty(len(wanted) * row_bytes, np.uint8)
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for run in np.split(np.arange(len(wanted)), breaks):
        first, n = int(wanted[run[0]]), len(run)
        at = int(run[0]) * row_bytes
        stored[at : at + n * row_bytes] = _bytes(read(first * row_bytes, n * row_bytes))
    return stored, np.arange(len(wanted), dtype=np.int32)


def _bytes(data: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data.reshape(-1).view(np.uint8)
