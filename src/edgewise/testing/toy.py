"""A two-layer transformer with random weights, in the fewest lines: for the tests of caches, loops and policies."""

from collections.abc import Sequence

import numpy as np

from edgewise.base import Tap
from edgewise.kernels.api import Array, AttnSpec, Device, Weight
from edgewise.kv.paged import PagedCache
from edgewise.models.api import Batch, ModelSpec


class ToyModel:
    """Embedding → 2 × (attention, residual) → untied head, no norms. 2 query heads share 1 KV head of 16."""

    HEADS, KV_HEADS, HEAD_DIM, LAYERS, DIM = 2, 1, 16, 2, 32
    replays = True

    def __init__(self, device: Device, vocab: int = 61, seed: int = 0, window: int | None = None) -> None:
        self.device = device
        self.spec = ModelSpec(
            "toy", self.LAYERS, self.DIM, self.HEADS, self.KV_HEADS, self.HEAD_DIM, 0, vocab, 4096, 1e-5, False,
            (window,) * self.LAYERS,
        )
        numbers = np.random.default_rng(seed)

        def weight(out: int, width: int, size: float) -> Weight:
            raw = (numbers.standard_normal((out, width)) * size).astype(np.float32).tobytes()
            return device.load((out, width), "F32", lambda offset, nbytes: raw[offset : offset + nbytes])

        self.table = weight(vocab, self.DIM, 1.0)
        key = self.KV_HEADS * self.HEAD_DIM
        self.projections = [
            [weight(rows, self.DIM, 0.4) for rows in (self.DIM, key, key, self.DIM)] for _ in range(self.LAYERS)
        ]
        self.out = weight(vocab, self.DIM, 0.15)

    def cache(self, pages: int = 64, page_tokens: int = 16, dtype: str = "f32") -> PagedCache:
        return PagedCache(self.device, self.LAYERS, self.KV_HEADS, self.HEAD_DIM, pages, page_tokens, dtype)

    def embed(self, batch: Batch) -> Array:
        return self.device.embed(self.table, batch.ids)

    def blocks(self, x: Array, batch: Batch, layers: Sequence[int]) -> Array:
        device = self.device
        for layer in layers:
            q, k, v = (device.linear(x, w) for w in self.projections[layer][:3])
            spec = AttnSpec(layer, self.HEADS, self.KV_HEADS, self.HEAD_DIM, 0.25, self.spec.windows[layer])
            seen = batch.kv.attend(spec, q, k, v, batch.plan)
            x = device.linear(seen, self.projections[layer][3], None, x)
            if batch.listen is not None:
                batch.listen(Tap.HIDDEN, layer, x)
        return x

    def states(self, x: Array) -> Array:
        return x

    def head(self, x: Array, batch: Batch) -> Array:
        return self.logits(self.device.rows(x, batch.outputs))

    def logits(self, states: Array) -> Array:
        return self.device.linear(states, self.out)
