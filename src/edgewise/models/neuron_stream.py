"""A model laid out by neurons (`convert --layout neurons`): feed-forward rows come and go one by one, all else stays.

Each pass asks `models.neurons` who is needed and `weights.neurons.NeuronStore` for their slots; parts that are here are
computed while the next are read. The order of additions is that of the neurons, so what stays and what is read in which
parts changes no bit (law 1), and with all neurons the result is the dense one (docs/decisions/0140).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.base import BadInput, OutOfRoom, Unsupported
from edgewise.base.limits import peak_resident_bytes, resident_bytes
from edgewise.kernels.api import Array, Device, Ints, Slots, Streams, Weight
from edgewise.kernels.neurons import add_neurons
from edgewise.models.api import ModelSpec
from edgewise.models.neurons import NEURONS, USUAL, USUAL_RELU
from edgewise.models.neurons.api import Neurons
from edgewise.models.streaming import MARGIN_BYTES, TOKENIZER_BYTES, Stream, fitting_rows, working_bytes
from edgewise.weights.api import Source, TensorInfo
from edgewise.weights.checkpoints.streamed import StreamedCheckpoint
from edgewise.weights.neurons import LaidNeurons, NeuronStore
from edgewise.weights.residency import FOR_NEURONS, RESIDENCIES
from edgewise.weights.sources import SOURCES

PART_BYTES = 16 << 20  # neurons that are computed while the next are read
LEAST = 4 << 20  # of slots


@dataclass(frozen=True)
class RowsAway:
    """Stands for a matrix whose rows come and go."""

    shape: tuple[int, ...]
    format: str
    nbytes: int = 0


class NeuronStream:
    """neurons: a name of NEURONS with settings; "": gate where it is a relu, else all. residency: FOR_NEURONS with
    settings, or "none": all is read again for each token."""

    def __init__(
        self, spec: ModelSpec, device: Device, laid: StreamedCheckpoint, *, budget_bytes: int, residency: str = "",
        neurons: str = "", source: str = "file", reserved_bytes: int = 0, rows: int = 512,
    ) -> None:  # fmt: skip
        if not hasattr(device, "slots"):
            raise Unsupported(f"Device '{device.info.name}' keeps all weights in memory; neurons need device 'cpu'.")
        self.spec, self.device, self.laid = spec, device, laid
        self.budget_bytes, self.reserved_bytes = budget_bytes, reserved_bytes
        self.rows = fitting_rows(spec, rows, budget_bytes)
        self.act: str = spec.extra["act"]
        self.picker: Neurons = NEURONS.build(neurons or (USUAL_RELU if self.act == "relu" else USUAL))
        self._residency = residency or FOR_NEURONS
        if self._residency.partition(":")[0] not in (FOR_NEURONS, "none"):
            raise BadInput(f"Neurons stay by residency '{FOR_NEURONS}' or 'none', not by '{residency}'.")
        # What the probe finds out is about large reads; these are small and many.
        self._source = "file" if source == "auto" else source
        self.layers: dict[int, NeuronFfn] = {}
        self.store: NeuronStore | None = None
        self._of = {one.layer: one for one in laid.neurons}

    # ── while the model is built (the loader asks as it asks Stream) ────────────────────

    def adopt(
        self, name: str, info: TensorInfo, shape: Sequence[int], rows: Ints | None, first: int, of: int
    ) -> Weight | None:
        layer, _, part = name.removeprefix("layers.").partition(".")
        if part not in ("gate", "up", "down") or int(layer) not in self._of:
            return None
        laid = self._of[int(layer)]
        if tuple(shape) != ((laid.dim, laid.count) if part == "down" else (laid.count, laid.dim)):
            raise BadInput(f"{name} is not laid out as this model needs it. Convert the model again.")
        return RowsAway(tuple(shape), info.format)

    def experts(self, ffn: Any) -> None:
        return None

    def neurons(self, layer: int) -> "NeuronFfn | None":
        if layer not in self._of:
            return None
        self.layers[layer] = made = NeuronFfn(self, self._of[layer])
        return made

    @contextmanager
    def turn(self, layer: int) -> Iterator[None]:
        yield

    # ── before and after reading ────────────────────────────────────────────────────────

    def check(self, stored_bytes: int) -> None:
        """Raises OutOfRoom naming the smallest budget that works. stored_bytes: of all tensors of the file."""
        away = sum(3 * one.count * one.row_bytes for one in self.laid.neurons)
        self._room(resident_bytes() + TOKENIZER_BYTES * self.spec.vocab, stored_bytes - away + self._kept)

    @property
    def _kept(self) -> int:
        """Bytes of gates that stay."""
        return 0 if self.picker.reads_gates else sum(one.count * one.row_bytes for one in self.laid.neurons)

    @property
    def neuron_bytes(self) -> int:
        """Of all neurons."""
        return sum(one.count * one.step for one in self.laid.neurons)

    def _room(self, process: int, resident: int) -> int:
        step = self._slot_bytes
        working = working_bytes(self.spec, self.rows) + MARGIN_BYTES
        fixed = process + resident + self.reserved_bytes + working
        least, total = -(-LEAST // step), sum(one.count for one in self.laid.neurons)
        count = min(total, (self.budget_bytes - fixed) // step)
        if count < min(least, total):
            mib = 1 << 20
            raise OutOfRoom(
                f"A memory budget of {self.budget_bytes / mib:.0f} MiB is too small for this model: "
                f"{process / mib:.0f} MiB the process itself, {resident / mib:.0f} MiB weights that every token needs, "
                f"{self.reserved_bytes / mib:.0f} MiB KV cache, {working / mib:.0f} MiB working memory, and "
                f"{least * step / mib:.0f} MiB for neurons. The smallest budget that works is "
                f"{-(-(fixed + least * step) // mib)} MiB; a smaller ctx_size makes it smaller."
            )
        return int(count)

    def open(self, slots: int = 0) -> None:
        """Loads what the picker keeps, and makes as many slots as the budget allows or as are asked for."""
        machine: Streams = self.device  # type: ignore[assignment]  # asked when it was made
        source = SOURCES.build(self._source, files=self.laid.header().files, direct=True)
        for one in self.laid.neurons:
            self.picker.open(self.device, one, self.act, source, self.laid.header().folder)
        room = machine.slots(slots or self._room(resident_bytes(), 0), self._slot_bytes)
        self._fill(room, source, self._residency, 0.0, False)

    def _fill(self, room: Slots, source: Source, residency: str, stay: float, apart: bool) -> None:
        kept = residency.partition(":")[0] == FOR_NEURONS
        total = sum(one.count for one in self.laid.neurons)
        self.store = NeuronStore(
            self.laid.neurons, room, source, RESIDENCIES.build(residency if kept else FOR_NEURONS, count=total),
            gates=self.picker.reads_gates, stay=stay, whole=not kept, apart=apart,
        )  # fmt: skip

    def renew(self, *, residency: str = "", stay: float = 0.0, apart: bool = False) -> None:
        """Begins again with empty slots, under other rules: for measurements. stay: share of the neurons that never
        leaves. apart: a neuron's rows are read one by one, as if they lay apart."""
        old = self.running
        old.finish()
        self._fill(old.slots, old.source, residency or self._residency, stay, apart)

    @property
    def _slot_bytes(self) -> int:
        """Of a neuron, without its gate row where that stays."""
        apart = not self.picker.reads_gates and all(one.gate_apart for one in self.laid.neurons)
        return max(one.step - (one.row_bytes if apart else 0) for one in self.laid.neurons)

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    @property
    def running(self) -> NeuronStore:
        if self.store is None:
            raise BadInput("This model's weights are not open (its engine was closed, or is not ready).")
        return self.store

    # ── what it tells ───────────────────────────────────────────────────────────────────

    def words(self) -> str:
        store = self.running
        share = store.slots.count / store.total
        return (
            f"budget {self.budget_bytes >> 20} MiB: room for {store.slots.count} of {store.total} neurons ({share:.0%})"
            f" of {store.slots.nbytes} bytes"
        )

    def report(self) -> dict[str, Any]:
        store = self.running
        counts = store.counts
        tokens = max(1, counts.tokens)
        return {
            "budget_bytes": self.budget_bytes, "slots": store.slots.count, "bundles": store.total,
            "slot_bytes": store.slots.nbytes, "hit_rate": counts.hit_rate, "bytes_read": counts.bytes_read,
            "reads": counts.reads, "passes": counts.tokens, "asked_token": counts.asked / tokens,
            "waited_s": counts.waited_s, "books_s": counts.books_s, "peak_bytes": peak_resident_bytes(),
        }  # fmt: skip

    def afterwards(self, tok_s: float) -> str:
        found = self.report()
        tokens = max(1, found["passes"])
        return (
            f"hit rate {found['hit_rate']:.1%}; a pass: {found['bytes_read'] / tokens / 1e6:.1f} MB in "
            f"{found['reads'] / tokens:.0f} reads, {found['asked_token'] / found['bundles']:.1%} of the neurons; "
            f"{tok_s:.1f} tok/s; peak memory {found['peak_bytes'] >> 20} MiB of {self.budget_bytes >> 20} MiB"
        )


class NeuronFfn:
    """The feed-forward part of one layer."""

    def __init__(self, stream: NeuronStream, laid: LaidNeurons) -> None:
        self.stream = stream
        self.laid = laid

    def run(self, device: Device, x: Array, norm: Array | None, eps: float, add: Array | None) -> Array:
        """What Device.ffn gives: (tokens, dim)."""
        stream, laid, store = self.stream, self.laid, self.stream.running
        if laid.layer == min(stream.layers):
            store.next_token()
        if norm is not None:
            x = device.rms_norm(x, norm, eps)
        picked = stream.picker.pick(device, laid.layer, x)
        stay = int(store.stay * store.total)
        part = max(2, min((store.slots.count - stay) // 2, PART_BYTES // laid.step))
        parts = list(_cuts(picked.ids, part))
        y: Array | None = None
        coming = store.bring(laid.layer, picked.ids[slice(*parts[0])])
        for number, (begin, end) in enumerate(parts):
            here, last = coming, number + 1 == len(parts)
            store.wait(here)
            try:
                if not last:
                    coming = store.bring(laid.layer, picked.ids[slice(*parts[number + 1])])
                y = add_neurons(
                    device, x, store.slots, here.places, picked.ids[begin:end], laid.row_bytes, laid.format, stream.act,
                    up_at=store.up_at, gates=picked.gates,
                    keep=None if picked.keep is None else picked.keep[:, begin:end].copy(), sums=y,
                    add=add if last else None,
                )  # fmt: skip
            finally:
                store.release(here)
        return y


def _cuts(ids: Ints, most: int) -> Iterator[tuple[int, int]]:
    """Runs of about `most` ids that do not part an even one from the odd one after it."""
    begin = 0
    while begin < len(ids) or begin == 0:
        end = min(len(ids), begin + most)
        if end < len(ids) and ids[end] % 2 and ids[end - 1] == ids[end] - 1:
            end = end - 1 if end - 1 > begin else end + 1
        yield begin, end
        if end == 0:
            return
        begin = end


def streaming(
    spec: ModelSpec, device: Device, files: Sequence[Path], *, laid: StreamedCheckpoint | None, prefetch: str = "none",
    neurons: str = "", waits: Sequence[Callable[[], bool]] = (), **settings: Any,
) -> Stream | NeuronStream:  # fmt: skip
    """What lets a model run under a memory budget: by neurons where it is laid out so, else by experts or layers."""
    if laid is not None and laid.neurons:
        if prefetch.partition(":")[0] != "none":
            raise BadInput(f"Neurons are not guessed ahead: leave '--prefetch {prefetch}' out.")
        return NeuronStream(spec, device, laid, neurons=neurons, **settings)
    if neurons:
        raise BadInput("Neurons can be chosen in a model laid out by `convert --layout neurons` only.")
    return Stream(spec, device, files, laid=laid, prefetch=prefetch, waits=waits, **settings)
