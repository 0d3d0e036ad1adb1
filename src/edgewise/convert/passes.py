"""Texts run through a model layer by layer, without an engine: for calibration, and to score what a conversion cost.

Only the part at work (the embedding, one layer, the head) is on the device, and the cache has room for one layer: a
model needs no more memory here than its largest part.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.decode.scoring import Sums, framed, tally, windows
from edgewise.kernels.api import Array, AttnSpec, Device, Ints, SeqRows, Weight
from edgewise.kernels.devices import DEVICES
from edgewise.kv import CACHES
from edgewise.kv.api import KVCache
from edgewise.models.api import Batch, Loader, Model, ModelSpec
from edgewise.models.loading import CheckpointLoader, examine
from edgewise.weights.api import Checkpoint
from edgewise.weights.sources import SOURCES

PAGE_TOKENS = 16
BATCH = 2048  # tokens that go through a layer together
ROWS = 256  # whose logits are computed at once

Wanted = Callable[[str], bool]


class OneLayer:
    """A cache that has room for one layer, and is every layer's in turn."""

    def __init__(self, spec: ModelSpec, device: Device, lengths: Sequence[int]) -> None:
        pages = sum(math.ceil(length / PAGE_TOKENS) for length in lengths)
        self.inner: KVCache = CACHES.build(
            "paged", device=device, layers=1, kv_heads=spec.kv_heads, head_dim=spec.head_dim, pages=pages,
            page_tokens=PAGE_TOKENS, dtype="f32",
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def attend(self, at: AttnSpec, q: Array, k: Array, v: Array, plan: Any) -> Array:
        return self.inner.attend(replace(at, layer=0), q, k, v, plan)


class PartLoader:
    """A models.api.Loader that gives None for what is not wanted, by canonical name."""

    def __init__(self, inner: Loader, wanted: Wanted) -> None:
        self.inner = inner
        self.wanted = wanted
        self.device = inner.device
        self.dialect = inner.dialect

    def has(self, name: str) -> bool:
        return self.inner.has(name)

    def weight(self, name: str, shape: tuple[int, ...], rows: Ints | None = None, stored_rows: int = 0) -> Weight:
        return self.inner.weight(name, shape, rows, stored_rows) if self.wanted(name) else None

    def vector(self, name: str, length: int, rows: Ints | None = None, plus: float = 0.0) -> Array:
        return self.inner.vector(name, length, rows, plus) if self.wanted(name) else None

    def experts(self, layer: int, part: str, count: int, shape: tuple[int, int]) -> Weight:
        wanted = self.wanted(f"layers.{layer}.experts.{part}")
        return self.inner.experts(layer, part, count, shape) if wanted else None

    def one_expert(self, name: str, shape: tuple[int, int]) -> Weight:
        return self.inner.one_expert(name, shape) if self.wanted(name) else None

    def rope(self, settings: Any, context: int) -> Any:
        return self.inner.rope(settings, context)


class Walk:
    """Sequences on their way through a model. `step` takes them through the next layer, `logits` through the head.

    wrap: a loader around the checkpoint's, for who wants to know the weights by name. Use as a context.
    """

    def __init__(
        self, checkpoint: Checkpoint, texts: Sequence[Sequence[int] | Ints], device: Device, *,
        context: int | None = None, wrap: Callable[[Loader], Loader] | None = None,
    ) -> None:  # fmt: skip
        self.member, self.spec, names = examine(checkpoint, context)
        self.device = device
        self.layer = 0  # the next
        self._source = SOURCES.build("file", files=checkpoint.header().files)
        loader: Loader = CheckpointLoader(checkpoint, self._source, device, names)
        self._loader = loader if wrap is None else wrap(loader)
        self._head: Model | None = None
        try:
            kv: Any = OneLayer(self.spec, device, [len(text) for text in texts])
            seqs = count()
            self.batches = [side_by_side(some, kv, seqs) for some in _together(texts)]
            model = self._part(lambda name: name == "embed")
            self.x = [model.embed(batch) for batch in self.batches]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Walk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    def _part(self, wanted: Wanted) -> Model:
        model: Model = self.member(self.spec, PartLoader(self._loader, wanted))
        self.device.filling().run()
        return model

    def step(self) -> None:
        at = f"layers.{self.layer}."
        model = self._part(lambda name: name.startswith(at))
        for i, batch in enumerate(self.batches):
            self.x[i] = model.blocks(self.x[i], batch, [self.layer])
        self.layer += 1

    def logits(self, batch: int, rows: Ints) -> Array:
        """Of some rows of a batch, after the last layer."""
        if self._head is None:
            self._head = self._part(lambda name: not name.startswith("layers.") and (self.spec.tied or name != "embed"))
        return self._head.head(self.x[batch], replace(self.batches[batch], outputs=rows))


def _together(texts: Sequence[Sequence[int] | Ints]) -> Iterator[Sequence[Sequence[int] | Ints]]:
    """Runs of at most BATCH tokens, or of one text."""
    first = room = 0
    for at, text in enumerate(texts):
        if at > first and len(text) > room:
            yield texts[first:at]
            first, room = at, BATCH
        room = (BATCH if at == first else room) - len(text)
    yield texts[first:]


def side_by_side(texts: Sequence[Sequence[int] | Ints], kv: KVCache, names: Iterator[int]) -> Batch:
    """New sequences as one batch that asks for no logits."""
    seqs: list[SeqRows] = []
    start = 0
    for ids in texts:
        seq = SeqId(next(names))
        kv.open(seq, ())
        kv.reserve(seq, len(ids))
        seqs.append(SeqRows(seq, start, len(ids), 0))
        start += len(ids)
    flat = np.concatenate([np.asarray(ids, np.int32) for ids in texts])
    positions = np.concatenate([np.arange(len(ids), dtype=np.int32) for ids in texts])
    return Batch(flat, positions, tuple(seqs), np.zeros(0, np.int32), kv, kv.begin(tuple(seqs)))


@dataclass(frozen=True)
class Loss:
    """What a text cost a model. perplexity is exp(nats / tokens)."""

    tokens: int
    nats: float
    perplexity: float


def score(checkpoint: Checkpoint, tokens: Sequence[int], bos: int | None, window: int, device: str = "cpu") -> Loss:
    """Every token but the first, with at least half a window before it where the text has it."""
    if len(tokens) < 2:
        raise BadInput(f"The text to score has {len(tokens)} tokens; at least two are needed.")
    parts = windows(len(tokens), window - 1, max(1, window // 2))
    frames = [framed(tokens, part, bos) for part in parts]
    sums = Sums()
    with Walk(checkpoint, [ids for ids, _ in frames], DEVICES.build(device, threads=None), context=window) as walk:
        for _ in range(walk.spec.layers):
            walk.step()
        rows = ((i, seq) for i, batch in enumerate(walk.batches) for seq in batch.seqs)
        for (ids, first), (i, seq) in zip(frames, rows, strict=True):
            tally(_logits(walk, i, seq, first), ids, first, sums)
    return Loss(sums.tokens, sums.nats, sums.perplexity)


def _logits(walk: Walk, batch: int, seq: SeqRows, first: int) -> Iterator[tuple[Any]]:
    """Logits of one sequence from row first - 1 on, as `tally` takes them; rows before it come as empty rows."""
    yield (np.empty((first - 1, 0), np.float32),)
    end = seq.start + seq.count
    for begin in range(seq.start + first - 1, end, ROWS):
        rows = np.arange(begin, min(begin + ROWS, end), dtype=np.int32)
        yield (walk.device.download(walk.logits(batch, rows)),)
