"""L4's contract: embed, blocks, head. Split in three so that pipelines, early exit and vision are arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgewise.base import Tap
from edgewise.kernels.api import Array, Device, Floats, Ints, SeqRows, Weight
from edgewise.kv.api import KVCache

Listener = Callable[[Tap, int, Array], None]


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one kind of layer: inverse frequencies (rot/2,) float32 and a factor on cos and sin."""

    inv_freq: Floats
    factor: float = 1.0


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a model, the same for every dialect. Sizes are counts, not bytes."""

    architecture: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int  # of a dense layer, or of one expert
    vocab: int  # rows of the embedding
    context: int  # longest sequence the model was made for
    eps: float
    tied: bool  # the head is the embedding
    windows: tuple[int | None, ...] = ()  # per layer; None: full attention
    experts: int = 0
    experts_per_token: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)  # what only this architecture knows


@dataclass(frozen=True)
class Batch:
    """One step: ragged rows of several sequences, concatenated. A row is a token."""

    ids: Ints  # (tokens,)
    positions: Ints  # (tokens,)
    seqs: tuple[SeqRows, ...]
    outputs: Ints  # rows whose logits are wanted, ascending
    kv: KVCache
    plan: Any = None  # kv.begin(seqs)
    listen: Listener | None = None


class Loader(Protocol):
    """Gives a model file its tensors by canonical name (models/names.py). models/loading.py implements it."""

    device: Device
    dialect: str  # "hf" | "gguf"

    def has(self, name: str) -> bool: ...

    # rows picks or permutes rows of the stored tensor, which has stored_rows of them (0: as many as shape)
    def weight(
        self, name: str, shape: tuple[int, ...], rows: Ints | None = None, stored_rows: int = 0
    ) -> Weight: ...

    def vector(self, name: str, length: int, rows: Ints | None = None, plus: float = 0.0) -> Array: ...

    # part "gate" | "up" | "down" of every expert of a layer, each of `shape` → (count, out, in)
    def experts(self, layer: int, part: str, count: int, shape: tuple[int, int]) -> Weight: ...

    def one_expert(self, name: str, shape: tuple[int, int]) -> Weight: ...  # an ordinary weight as (1, out, in)

    def rope(self, settings: Any, context: int) -> Any: ...  # ropes.RopeSettings → ropes.RopeTable, shared by layers


class Model(Protocol):
    spec: ModelSpec
    replays: bool  # every step asks the device for the same verbs; only row counts and positions differ

    def embed(self, batch: Batch) -> Array: ...  # (tokens, dim)

    def blocks(self, x: Array, batch: Batch, layers: Sequence[int]) -> Array: ...  # (tokens, dim)

    def states(self, x: Array) -> Array: ...  # after the last norm, as embeddings are made of them: (tokens, dim)

    def logits(self, states: Array) -> Array: ...  # of `states`: (rows, vocab)

    # logits of the wanted rows' states, in one go: (len(batch.outputs), vocab)
    def head(self, x: Array, batch: Batch) -> Array: ...
