"""The smallest loop that runs a model: prefill in chunks, then greedy, one sequence at a time. Tests only."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.base import SeqId
from edgewise.kernels.api import Device, SeqRows
from edgewise.kv.paged import PagedCache
from edgewise.models.api import Batch, Listener, Model


class Driver:
    """One sequence over a paged cache in float32."""

    def __init__(self, model: Model, device: Device, tokens: int = 512, listen: Listener | None = None) -> None:
        spec = model.spec
        self.model = model
        self.device = device
        self.listen = listen
        self.past = 0
        self.kv = PagedCache(device, spec.layers, spec.kv_heads, spec.head_dim, pages=-(-tokens // 16), dtype="f32")
        self.kv.open(SeqId(0), [])

    def step(self, tokens: Sequence[int], outputs: Sequence[int] | None = None) -> Any:
        """Logits (len(outputs), vocab); None: of every token."""
        count = len(tokens)
        seqs = (SeqRows(seq=0, start=0, count=count, past=self.past),)
        self.kv.reserve(SeqId(0), self.past + count)
        batch = Batch(
            ids=np.asarray(tokens, np.int32),
            positions=np.arange(self.past, self.past + count, dtype=np.int32),
            seqs=seqs,
            outputs=np.asarray(range(count) if outputs is None else outputs, np.int32),
            kv=self.kv,
            plan=self.kv.begin(seqs),
            listen=self.listen,
        )
        x = self.model.blocks(self.model.embed(batch), batch, range(self.model.spec.layers))
        logits = np.array(self.device.download(self.model.head(x, batch)))
        self.kv.commit(seqs)
        self.past += count
        return logits

    def logits(self, tokens: Sequence[int], chunk: int | None = None) -> Any:
        size = chunk or len(tokens)
        return np.concatenate([self.step(tokens[i : i + size]) for i in range(0, len(tokens), size)])

    def greedy(self, tokens: Sequence[int], count: int) -> tuple[list[int], list[Any]]:
        """Tokens and the logits each was chosen from; the prompt must not have been run yet."""
        row = self.step(tokens, [len(tokens) - 1])[0]
        chosen, rows = [], []
        for _ in range(count):
            chosen.append(int(row.argmax()))
            rows.append(row)
            row = self.step(chosen[-1:])[0]
        return chosen, rows
