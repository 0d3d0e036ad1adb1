"""A model under a memory budget: its experts, or the layers of a dense model, come and go while it runs.

While a model is built the loader hands over each matrix that need not stay (`adopt`). `check` refuses a budget that
cannot work before anything is read; `open` makes as many slots as the memory that is left holds. A layer then says
whom it wants: `StreamedExperts.run` around `Device.moe`, `Stream.turn` around a dense layer. The same numbers are
computed in the same order as with all weights here, so the text is the same (law 1).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgewise.base import BadInput, OutOfRoom, Unsupported
from edgewise.base.limits import free_bytes, resident_bytes
from edgewise.kernels.api import Array, Bundle, Device, Ints, Routing, Streams, Weight
from edgewise.models.api import ModelSpec
from edgewise.models.forecast import Costs, expert_tokens_s, layer_tokens_s
from edgewise.weights.api import Key, Prefetcher, Residency, Source, TensorInfo
from edgewise.weights.checkpoints.streamed import StreamedCheckpoint
from edgewise.weights.prefetchers import PREFETCHERS
from edgewise.weights.probing import Probed, probe
from edgewise.weights.residency import FOR_EXPERTS, FOR_FEW_EXPERTS, FOR_LAYERS, RESIDENCIES, SCARCE
from edgewise.weights.sources import SOURCES
from edgewise.weights.store import Piece, Stored, WeightStore

PIECE_BYTES = 2 << 20  # read at once
READERS = 4
FEWEST_ROWS = 16  # of the largest pass
FEW = 4  # tokens of a pass in which guessing pays; more want nearly every expert
MARGIN_BYTES = 32 << 20  # for what nobody counts: stacks, the allocator's own, what Python still imports
TOKENIZER_BYTES = 1200  # of memory a token of the vocabulary, the merges included
_EXPERT = re.compile(r"layers\.(\d+)\.expert\.(\d+)\.")
_LAYER = re.compile(r"layers\.(\d+)\.")


class Routed(Protocol):
    """What a layer of experts can be asked: models.layers.MoeFfn."""

    layer: int

    def choose(self, device: Device, x: Array) -> tuple[Array, Routing]: ...  # the router's logits, and whom it takes


@dataclass(frozen=True)
class Needs:
    """Bytes of memory, by what needs them."""

    process: int  # that the process has already
    resident: int  # weights that stay
    kv: int
    working: int  # activations, buffers of the readers, margin
    slot: int  # one bundle
    least: int  # bundles that a pass must have at once
    bundles: int  # in all

    @property
    def fixed(self) -> int:
        return self.process + self.resident + self.kv + self.working

    @property
    def smallest(self) -> int:
        """The smallest budget that works, in whole MiB; a process is never twice of exactly one size."""
        return math.ceil(((self.fixed + self.least * self.slot) * 1.02) / (1 << 20)) << 20

    def count(self, budget: int) -> int:
        """Slots that fit."""
        return min(self.bundles, (budget - self.fixed) // self.slot) if self.slot else 0


class Stream:
    """budget_bytes: all memory of the process. residency, prefetch and source: catalog names with settings; residency
    "" is the usual one for what streams, source "auto" the fastest here. reserved_bytes: for the cache and
    whatever else is there. rows: of the largest pass. waits: who is called while weights are awaited, between two
    layers; he does a little and says whether he did anything."""

    def __init__(
        self, spec: ModelSpec, device: Device, files: Sequence[Path], *, budget_bytes: int, residency: str = "",
        prefetch: str = "none", source: str = "file", reserved_bytes: int = 0, rows: int = 512,
        laid: StreamedCheckpoint | None = None, waits: Sequence[Callable[[], bool]] = (),
    ) -> None:  # fmt: skip
        if not (hasattr(device, "bundle") and hasattr(device, "packs")):
            raise Unsupported(
                f"Device '{device.info.name}' keeps all weights in memory; a memory budget needs device 'cpu'."
            )
        self.spec = spec
        self.device = device
        self.machine: Streams = device  # type: ignore[assignment]  # asked above
        self.files = tuple(files)
        self.budget_bytes, self.reserved_bytes = budget_bytes, reserved_bytes
        self.rows = fitting_rows(spec, rows, budget_bytes)
        self.residency_name, self.source = residency, source
        self.probed: Probed | None = None  # what source "auto" found
        if source != "auto":
            SOURCES.load(source.partition(":")[0])
        if residency:
            RESIDENCIES.load(residency.partition(":")[0])  # unknown names are refused now
        self.prefetcher: Prefetcher = PREFETCHERS.build(prefetch)
        self.layers: dict[int, StreamedExperts] = {}
        self.store: WeightStore | None = None
        self.residency: Residency | None = None
        self.adopted_bytes = 0  # of the file
        self.slots_room = 0  # what the budget leaves for slots
        self.adopted: dict[str, TensorInfo] = {}  # stored names
        self.parts: dict[Key, list[tuple[int, int, str]]] = {}  # (rows, columns, format) of a bundle's weights
        self.laid = laid
        self.waits = waits
        self._bundles: dict[Key, Bundle] = {}
        self._pieces: dict[Key, list[Piece]] = {}
        self._turns: dict[int, int] = {}  # layer → key
        self._stored: tuple[Stored, ...] = ()

    # ── while the model is built ────────────────────────────────────────────────────────

    def adopt(
        self, name: str, info: TensorInfo, shape: Sequence[int], rows: Ints | None, first: int, of: int
    ) -> Weight | None:
        """Takes a matrix that may come and go: stored rows `rows` (None: all) of the `of` rows that begin `first` bytes
        into the tensor. None: it stays."""
        key = self._key(name)
        if key is None or not self.machine.packs(info.format):
            return None
        count = of if rows is None else len(rows)
        row_bytes = info.extent.nbytes // (math.prod(info.shape) // int(shape[-1]))
        self.adopted_bytes += of * row_bytes
        self.adopted[info.name] = info
        if key not in self._bundles:
            self._bundles[key], self._pieces[key], self.parts[key] = self.machine.bundle(), [], []
        self.parts[key].append((count, int(shape[-1]), info.format))
        if self.laid is not None:
            return self._bundles[key].add(count, int(shape[-1]), info.format)
        part = sum(piece.row == 0 for piece in self._pieces[key])
        for row, low, high, index in _cuts(rows, of, row_bytes):
            self._pieces[key].append(
                Piece(info.extent, first + low * row_bytes, (high - low) * row_bytes, part, row, index)
            )
        return self._bundles[key].add(count, int(shape[-1]), info.format)

    def _key(self, name: str) -> Key | None:
        found = _EXPERT.match(name)
        if found:
            return Key(int(found[1]), "expert", int(found[2]))
        found = None if self.spec.experts else _LAYER.match(name)
        return Key(int(found[1]), "weights") if found else None

    def experts(self, ffn: Routed) -> "StreamedExperts | None":
        """What a layer's experts are run with; None: they stay."""
        keys = sorted(key for key in self._bundles if key.layer == ffn.layer and key.expert >= 0)
        if not keys:
            return None
        self.layers[ffn.layer] = streamed = StreamedExperts(self, ffn)
        return streamed

    def neurons(self, layer: int) -> Any:
        """What runs a feed-forward part whose neurons come and go one by one: models.neuron_stream has that."""
        return None

    # ── before and after reading ────────────────────────────────────────────────────────

    def check(self, stored_bytes: int) -> None:
        """Raises OutOfRoom naming the smallest budget that works. stored_bytes: of all tensors of the file."""
        if not self._bundles:
            formats = "no matrix of it is in a format that can be read while the model runs"
            raise Unsupported(f"This model cannot run under a memory budget: {formats}. Convert it, say to q4_0.")
        words = TOKENIZER_BYTES * self.spec.vocab
        self._refuse(resident_bytes() + words, stored_bytes - self.adopted_bytes)

    def open(self, slots: int = 0) -> None:
        """Makes the slots, as many as the budget allows or as are asked for; the weights that stay are here. Raises
        OutOfRoom."""
        process = resident_bytes()
        if not slots:
            self._refuse(process, 0)
        needs = self.needs(process, 0)
        self.slots_room = self.budget_bytes - needs.fixed
        if self.laid is not None:
            for key in self._bundles:
                self._pieces[key] = self._as_laid(key, self.laid)
        self._stored = tuple(Stored(key, self._bundles[key], self._pieces[key]) for key in sorted(self._bundles))
        for number, stored in enumerate(self._stored):
            if stored.key.expert < 0:
                self._turns[stored.key.layer] = number
            elif stored.key.expert == 0:
                self.layers[stored.key.layer].first = number
        room = self.machine.slots(slots or needs.count(self.budget_bytes), needs.slot)
        if self.source == "auto":
            self.probed = probe(self.files[-1])
            self.source = self.probed.chosen
        source: Source = SOURCES.build(self.source, files=self.files, direct=True)
        self.residency = RESIDENCIES.build(self.residency_name or self.usual(room.count), count=len(self._stored))
        self.store = WeightStore(self._stored, room, source, self.residency, readers=READERS)

    def usual(self, slots: int) -> str:
        """The residency that is taken when nobody says."""
        token = self.needs(0, 0).least * len(self.layers)
        return FOR_LAYERS if not token else FOR_FEW_EXPERTS if slots < SCARCE * token else FOR_EXPERTS

    def _as_laid(self, key: Key, laid: StreamedCheckpoint) -> list[Piece]:
        """The pieces of a bundle that lies in the file as it is computed with. Raises BadInput."""
        found = laid.layout.get(key)
        if found is None or list(found.parts) != self.parts[key] or found.extent.nbytes != self._bundles[key].nbytes:
            raise BadInput(f"{self.files[-1]}: {key} is not laid out as this model needs it. Convert the model again.")
        step, total = laid.piece_bytes, found.extent.nbytes
        return [
            Piece(found.extent, at, min(step, total - at), at=at, checksum=found.checksums[at // step])
            for at in range(0, total, step)
        ]

    def needs(self, process: int, resident: int) -> Needs:
        least = min(self.spec.experts_per_token, self.spec.experts) or 1
        slot = max(bundle.nbytes for bundle in self._bundles.values())
        working = working_bytes(self.spec, self.rows) + READERS * 2 * PIECE_BYTES + MARGIN_BYTES
        return Needs(process, resident, self.reserved_bytes, working, slot, least, len(self._bundles))

    def _refuse(self, process: int, resident: int) -> None:
        """Raises OutOfRoom when nothing helps, smaller passes neither."""
        needs = self.needs(process, resident)
        while needs.count(self.budget_bytes) < needs.least and self.rows > FEWEST_ROWS:
            self.rows = max(FEWEST_ROWS, self.rows // 2)
            needs = self.needs(process, resident)
        if needs.count(self.budget_bytes) >= needs.least:
            return
        mib = 1 << 20
        raise OutOfRoom(
            f"A memory budget of {self.budget_bytes / mib:.0f} MiB is too small for this model: "
            f"{needs.process / mib:.0f} MiB the process itself, {needs.resident / mib:.0f} MiB weights that every "
            f"token needs, {needs.kv / mib:.0f} MiB KV cache, {needs.working / mib:.0f} MiB working memory, and "
            f"{needs.least} x {needs.slot / mib:.1f} MiB for what one layer needs at once. "
            f"The smallest budget that works is {needs.smallest >> 20} MiB; a smaller ctx_size makes it smaller."
        )

    def close(self) -> None:
        """Ends the readers and gives the slots back."""
        if self.store is not None:
            self.store.close()
            self.store = None

    # ── while it runs ───────────────────────────────────────────────────────────────────

    @property
    def running(self) -> WeightStore:
        if self.store is None:
            raise BadInput("This model's weights are not open (its engine was closed, or is not ready).")
        return self.store

    @contextmanager
    def turn(self, layer: int) -> Iterator[None]:
        """The weights of a dense layer are here while the block runs, and those of the next ones on their way."""
        key = self._turns.get(layer)
        if key is None:
            yield
            return
        store, count = self.running, len(self._stored)
        with store.pin([key], wait=False):
            store.hint([(key + ahead) % count for ahead in range(1, min(count, store.slots.count))])
            self.meanwhile([key])
            store.wait([key])
            yield

    def meanwhile(self, keys: Sequence[int]) -> None:
        """Lets others work until these are here, or nobody has anything to do."""
        for work in self.waits:
            while not self.running.here(keys) and work():
                pass

    def after(self, layer: int) -> "StreamedExperts | None":
        """The next layer of experts; after the last one the first, for the next token."""
        later = [at for at in self.layers if at > layer]
        return self.layers[min(later)] if later else None


class StreamedExperts:
    """The experts of one layer. first: the number of its expert 0 in the store."""

    def __init__(self, stream: Stream, ffn: Routed) -> None:
        self.stream = stream
        self.ffn = ffn
        self.first = 0

    def run(
        self, device: Device, x: Array, logits: Array, routing: Routing, gate: Weight, up: Weight, down: Weight,
        act: str,
    ) -> Array:  # fmt: skip
        """What Device.moe gives: (tokens, dim)."""
        store = self.stream.running
        parts = list(_parts(routing.ids, store.slots.count))
        if len(parts) == 1:
            with store.pin(self._keys(routing.ids), wait=False):
                if len(routing.ids) <= FEW:
                    self._guess(device, x, logits, routing)
                if self.stream.waits:
                    self.stream.meanwhile(self._keys(routing.ids))
                return device.moe(x, routing, gate, up, down, act)
        results = []  # more experts than slots: some tokens after the others. A row's bits do not depend on its company
        for begin, end in parts:
            some = Routing(routing.ids[begin:end], routing.weights[begin:end])
            with store.pin(self._keys(some.ids), wait=False):
                y = device.moe(device.rows(x, np.arange(begin, end, dtype=np.int32)), some, gate, up, down, act)
            results.append(np.array(device.download(y)))
        return device.upload(np.concatenate(results))

    def expect(self, routing: Routing) -> None:
        """These will be wanted as soon as attention is done."""
        self.stream.running.hint(self._keys(routing.ids))

    def _keys(self, ids: Ints) -> list[int]:
        return [self.first + int(expert) for expert in np.unique(ids)]

    def _guess(self, device: Device, x: Array, logits: Array, routing: Routing) -> None:
        """Tells the residency what the router thought, and the store what comes next."""
        stream = self.stream
        assert stream.residency is not None
        values = np.asarray(device.download(logits), np.float32)
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        stream.residency.routed(self.first, (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0).tolist())
        following = stream.after(self.ffn.layer)
        if following is None:
            return

        def asked() -> Sequence[int]:
            assert following is not None
            _, choice = following.ffn.choose(device, x)
            return list(dict.fromkeys(choice.ids.T.ravel().tolist()))  # every token's first choice, then the second ...

        chosen = list(dict.fromkeys(routing.ids.ravel().tolist()))
        guess = stream.prefetcher.wants(self.ffn.layer, chosen, asked)
        if guess:
            stream.running.hint([following.first + expert for expert in guess])


def _parts(ids: Ints, room: int) -> Iterator[tuple[int, int]]:
    """Runs of rows that want at most `room` experts between them, as long as possible."""
    begin, wanted = 0, set[int]()
    for row, own in enumerate(ids.tolist()):
        if len(wanted | set(own)) > room and row > begin:
            yield begin, row
            begin, wanted = row, set()
        wanted |= set(own)
    yield begin, len(ids)


def _cuts(rows: Ints | None, of: int, row_bytes: int) -> Iterator[tuple[int, int, int, Ints | None]]:
    """(first output row, first stored row, end, order within): pieces that can be packed by themselves.

    A permuted matrix is cut only where all rows before come from before.
    """
    if rows is not None and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        base, count, order = int(rows[0]), len(rows), None
    elif rows is None:
        base, count, order = 0, of, None
    else:
        base, count, order = int(rows.min()), len(rows), rows - np.int32(rows.min())
    step = max(32, PIECE_BYTES // row_bytes // 32 * 32)
    if order is None:
        for row in range(0, count, step):
            yield row, base + row, base + min(count, row + step), None
        return
    ends = np.flatnonzero(np.maximum.accumulate(order) == np.arange(count)) + 1
    ends = ends[(ends % 32 == 0) | (ends == count)]
    if not len(ends):  # rows out of a larger matrix, here and there
        yield 0, base, base + int(order.max()) + 1, order
        return
    begin = 0
    for at, end in enumerate(ends.tolist()):
        if end - begin >= step or at == len(ends) - 1:
            yield begin, base + begin, base + end, np.ascontiguousarray(order[begin:end] - np.int32(begin))
            begin = end


def working_bytes(spec: ModelSpec, rows: int) -> int:
    """What a pass of so many tokens needs besides weights and KV, with the allocator's rounding."""
    wide = max(spec.dim, spec.heads * spec.head_dim)
    floats = 10 * wide + 3 * spec.ffn_dim
    if spec.experts:
        floats = 10 * wide + spec.experts_per_token * (3 * spec.ffn_dim + 2 * spec.dim)
    return int(1.4 * 4 * rows * floats) + 8 * 4 * spec.vocab


def fitting_rows(spec: ModelSpec, rows: int, budget_bytes: int) -> int:
    """Tokens of a pass, at most `rows`, whose working memory is at most a twelfth of the budget; at least 16."""
    while rows > FEWEST_ROWS and working_bytes(spec, rows) > budget_bytes // 12:
        rows = max(FEWEST_ROWS, rows // 2)
    return rows


def speed(stream: Stream, costs: Costs, hit_rate: float) -> float:
    """Tokens per second that one sequence can expect at this rate of hits."""
    needs = stream.needs(0, 0)
    if stream.layers:
        return expert_tokens_s(costs, len(stream.layers), needs.least, hit_rate)
    return layer_tokens_s(costs, needs.bundles, hit_rate)


def budget_of(wanted: Any, stored_bytes: int, memory: int, laid: bool, streams: bool) -> int | None:
    """Bytes that a process may have; None: all weights stay, and nothing is counted.

    wanted: a size, "auto" (what the machine and its control groups leave free), or None: a budget only where weights
    have to come and go, because they are laid out so or are more than memory holds. memory: 0 where nobody knows.
    """
    if wanted is None and not laid and not (streams and memory and stored_bytes > memory * 9 // 10):
        return None
    if wanted is not None and str(wanted).strip().lower() != "auto":
        return parse_size(wanted)
    free, known = free_bytes(), [memory] if memory else []
    if free is not None:
        known.append(free + resident_bytes())
    return min(known) * 9 // 10 if known else 1 << 50


def parse_size(text: Any) -> int:
    """"2GiB", "600MB", "1.5G" or a number of bytes. Raises BadInput."""
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)\s*", str(text), re.IGNORECASE)
    if not found or (found[3] and not found[2]):
        raise BadInput(f"'{text}' is no size. Write for example 2GiB, 600MB or a number of bytes.")
    number, prefix, binary, b = found.groups()
    step = 1000 if prefix and b and not binary else 1024  # MB: a million; M and MiB: 2^20
    nbytes = int(float(number) * step ** " kmgt".index(prefix.lower() or " "))
    if nbytes <= 0:
        raise BadInput(f"'{text}' is no size: it must be above 0.")
    return nbytes
