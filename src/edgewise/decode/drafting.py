"""What members share that draft with a second model: loading it beside the target, its cache, its passes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.base import Incompatible, OutOfRoom, SeqId
from edgewise.decode.api import Target
from edgewise.kernels.api import Device, Floats, SeqRows
from edgewise.kv import CACHES
from edgewise.kv.types import token_bytes
from edgewise.models import begin_model, read_spec
from edgewise.models.api import Batch, Model
from edgewise.models.passes import Pass
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Header

PAGE = 16
MIB = 1 << 20


class DraftModel:
    """A model that drafts, on the target's device, with `pages` pages of KV of its own."""

    def __init__(self, model: Model, device: Device, pages: int, dtype: str) -> None:
        spec = model.spec
        self.spec, self.device = spec, device
        self.kv: Any = CACHES.build(
            "paged", device=device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim, pages=pages,
            page_tokens=PAGE, dtype=dtype,
        )  # fmt: skip
        self._pass = Pass(model, device)
        self._logits: Any = None  # keeps the device's array alive while the caller looks at it

    def run(self, work: Sequence[tuple[SeqId, Sequence[int], int]]) -> Floats:
        """(sequence, new tokens, tokens cached before) of each, room reserved: logits after the last token of each,
        (len(work), vocab), valid until the next pass."""
        seqs: list[SeqRows] = []
        ids: list[int] = []
        places: list[int] = []
        last: list[int] = []
        for seq, tokens, past in work:
            seqs.append(SeqRows(seq, len(ids), len(tokens), past))
            places += range(past, past + len(tokens))
            ids += tokens
            last.append(len(ids) - 1)
        batch = Batch(
            np.array(ids, np.int32), np.array(places, np.int32), tuple(seqs), np.array(last, np.int32), self.kv,
            self.kv.begin(seqs),
        )  # fmt: skip
        self._logits = self._pass.run(batch)
        self.kv.commit(seqs)
        logits: Floats = self.device.download(self._logits)
        return logits

    def kv_bytes(self) -> int:
        """What its cache really took so far."""
        return int(self.kv.pages.touched * PAGE * self.kv.token_bytes)


def load_draft(
    path: str, target: Target, *, seen: int, spare_pages: int = 0, memory_mb: float = 0.0, dtype: str = "f16"
) -> tuple[DraftModel, int]:
    """Loads a draft model with pages for every sequence's last `seen` tokens and `spare_pages`, or for memory_mb with
    its weights; the bytes it holds. Raises Incompatible, OutOfRoom and what opening a checkpoint raises."""
    checkpoint = open_checkpoint(path)
    header = checkpoint.header()
    spec = read_spec(header)
    same_vocabulary(header, spec.vocab, target)
    seen = min(seen, spec.context)
    weights = sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names())
    each = token_bytes(spec.layers, spec.kv_heads, spec.head_dim, dtype) * PAGE
    pages = -(-seen // PAGE) * target.sequences + spare_pages
    if memory_mb:
        room = int(memory_mb * MIB - weights) // each
        if room < 2:
            raise OutOfRoom(
                f"The draft model {header.name} takes {weights / MIB:.1f} MiB for its weights and {each / MIB:.2f} "
                f"MiB for {PAGE} tokens, but memory_mb={memory_mb:g}. Give it more, or use a smaller one."
            )
        pages = min(pages, room)
    model, loading = begin_model(checkpoint, target.device, context=seen)
    loading.wait()
    return DraftModel(model, target.device, pages, dtype), weights + pages * each


def same_vocabulary(header: Header, vocab: int, target: Target) -> None:
    """Raises Incompatible unless every token id means the same to both models."""
    ours, theirs = target.pieces(target.header), target.pieces(header)
    who = f"The draft model {header.name} and {target.header.name}"
    if ours is None or theirs is None:  # nothing to compare but sizes
        if vocab != target.spec.vocab:
            raise Incompatible(f"{who} have vocabularies of {vocab} and {target.spec.vocab} tokens. Use a pair.")
        return
    for token, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our != their:
            raise Incompatible(
                f"{who} have different vocabularies: token {token} is {their!r} in the one, {our!r} in the other. "
                "Use a draft model of the same family."
            )
    if len(ours) != len(theirs):
        raise Incompatible(
            f"{who} have different vocabularies: {len(theirs)} and {len(ours)} tokens. Use a draft model of the same "
            "family."
        )
