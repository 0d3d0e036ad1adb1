"""A model run over whole texts, without an engine: for calibration, and to score what a conversion cost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.decode.scoring import Sums, framed, tally, windows
from edgewise.kernels.api import Device, Ints, SeqRows
from edgewise.kernels.devices import DEVICES
from edgewise.kv import CACHES
from edgewise.kv.api import KVCache
from edgewise.models import load_model
from edgewise.models.api import Batch, Model, ModelSpec
from edgewise.weights.api import Checkpoint

PAGE_TOKENS = 16
ROWS = 512  # whose logits are computed at once


def room(spec: ModelSpec, device: Device, lengths: Sequence[int]) -> KVCache:
    """A float32 cache that holds sequences of these lengths."""
    pages = sum(math.ceil(length / PAGE_TOKENS) for length in lengths)
    cache: KVCache = CACHES.build(
        "paged", device=device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim, pages=pages,
        page_tokens=PAGE_TOKENS, dtype="f32",
    )  # fmt: skip
    return cache


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
    machine: Device = DEVICES.build(device, threads=None)
    model = load_model(checkpoint, machine, context=window)
    kv = room(model.spec, machine, [window])
    names, sums = count(), Sums()
    for part in windows(len(tokens), window - 1, max(1, window // 2)):
        ids, first = framed(tokens, part, bos)
        tally(_logits(model, machine, kv, ids, first, names), ids, first, sums)
    return Loss(sums.tokens, sums.nats, sums.perplexity)


def _logits(model: Model, device: Device, kv: KVCache, ids: Sequence[int], first: int, names: Iterator[int]) -> Any:
    """Logits from row first - 1 on, as `tally` takes them; rows before it come as empty rows."""
    batch = side_by_side([ids], kv, names)
    x = model.blocks(model.embed(batch), batch, range(model.spec.layers))
    kv.commit(batch.seqs)
    yield (np.empty((first - 1, 0), np.float32),)
    for begin in range(first - 1, len(ids), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(ids)), dtype=np.int32)
        yield (device.download(model.head(x, replace(batch, outputs=rows))),)
    kv.close(SeqId(batch.seqs[0].seq))
