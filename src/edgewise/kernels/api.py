"""L2's contract: what a machine can compute. A device is a small set of verbs over arrays that it owns.

Every verb works row by row (a row is a token) with a fixed order of additions, so that a row's result does not depend
on how many rows came with it, on the number of threads, or on page and chunk sizes (law 1). Activations are float32.
`Array` is whatever the device uses: numpy.ndarray on `reference`, a native buffer handle on `cpu`. Shapes are given as
(rows, columns); a head-wise array is (tokens, heads * head_dim), heads outermost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = Any  # a device's own array
Weight = Any  # a device's own packed weight; has .shape (out, in) and .format
ReadAt = Callable[[int, int], "memoryview | bytes | npt.NDArray[np.uint8]"]  # (offset, nbytes) -> bytes
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Place(NamedTuple):
    """Where stored bytes lie as they are, in a file that stays open until the device's `filling` has run."""

    fd: int
    offset: int
    path: Path


class Filling(Protocol):
    """Weights that `Device.load` has made but not read yet. Until `run` has returned they cannot be used."""

    def run(self) -> None: ...  # blocks; any thread, once. Raises BadInput naming file and offset

    def stop(self) -> None: ...  # from another thread: `run` returns soon, and the weights stay unusable

    # Whether there is memory that started quickly at the price of slower use, of which about nbytes are put right now.
    # 0 only asks. Beside any other work; no result changes
    def settle(self, nbytes: int) -> bool: ...


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is. Rates are measured, never assumed; None until measured."""

    name: str
    isa: str  # the kernel table in use: "numpy", "baseline", "avx2", "avx512", "avx512_bf16", ...
    threads: int
    memory_bytes: int


@dataclass(frozen=True)
class AttnSpec:
    """What one layer's attention is. Scores are scale * q·k, optionally softcap * tanh(score / softcap)."""

    layer: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None  # sliding window: a token sees itself and window - 1 before it
    softcap: float | None = None


class SeqRows(NamedTuple):
    """Where one sequence's new tokens lie in a step: rows [start, start + count), after `past` cached tokens."""

    seq: int
    start: int
    count: int  # type: ignore[assignment]  # a tuple's own count is of no use here
    past: int


class Device(Protocol):
    """About twenty verbs. Members: `reference` (numpy, the slow truth) and `cpu` (csrc)."""

    info: DeviceInfo

    # arrays in and out
    def upload(self, values: npt.NDArray[Any]) -> Array: ...  # float32 or int32; copies
    def download(self, x: Array) -> Floats: ...  # a view where possible; valid while x lives
    # weights: `fmt` is a FormatId name ("F32", "BF16", "Q4_0", ...); read yields the stored bytes of the tensor;
    # rows selects or permutes the output rows (None: all, in order). With a place, the device may read the file
    # itself, and later: `filling` gives all that was put off since it was last asked. scales (stored rows, spans of
    # 128 columns): what 8-bit floats are multiplied with. into: narrow to this format, rounding to nearest
    def load(
        self, shape: Sequence[int], fmt: str, read: ReadAt, rows: Ints | None = None, place: Place | None = None, *,
        scales: Floats | None = None, into: str | None = None,
    ) -> Weight: ...
    def filling(self) -> Filling: ...
    def experts(self, weights: Sequence[Weight]) -> Weight: ...  # many (out, in) of one shape → (E, out, in)
    # rows
    def embed(self, table: Weight, ids: Ints) -> Array: ...  # (tokens, dim)
    def rows(self, x: Array, index: Ints) -> Array: ...  # (len(index), dim)
    # of each row the first index of its largest value; -1 where a value is NaN or infinite
    def peaks(self, x: Array) -> Sequence[int]: ...
    # x @ w.T (+ bias) (+ add); w (out, in), x (tokens, in) → (tokens, out)
    def linear(self, x: Array, w: Weight, bias: Array | None = None, add: Array | None = None) -> Array: ...
    # fused: the bits of the verbs they stand for, in fewer parallel regions. qkv is rms_norm (if norm), three linears,
    # rms_norm of q and k (if q_norm, k_norm), rope of q and k (if table); ffn is rms_norm (if norm), gate, up, act_mul,
    # down (+ add)
    def qkv(
        self, x: Array, q: Weight, k: Weight, v: Weight, *, q_bias: Array | None = None, k_bias: Array | None = None,
        v_bias: Array | None = None, norm: Array | None = None, q_norm: Array | None = None,
        k_norm: Array | None = None, eps: float = 0.0, positions: Ints | None = None, table: Array | None = None,
        head_dim: int = 0,
    ) -> tuple[Array, Array, Array]: ...
    def ffn(
        self, x: Array, gate: Weight, up: Weight, down: Weight, act: str, *, gate_bias: Array | None = None,
        up_bias: Array | None = None, down_bias: Array | None = None, norm: Array | None = None, eps: float = 0.0,
        add: Array | None = None,
    ) -> Array: ...
    # each run of len(weight) columns is normalised by its own root mean square, then multiplied by weight
    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array: ...
    def add(self, x: Array, y: Array) -> Array: ...
    def scale(self, x: Array, factor: float) -> Array: ...
    def softcap(self, x: Array, cap: float) -> Array: ...  # cap * tanh(x / cap)
    # kind: "silu" | "gelu_tanh" | "gelu" | "relu"; act(gate) * up
    def act_mul(self, gate: Array, up: Array, kind: str) -> Array: ...
    # rotates halves (x1, x2) of the first 2*table.shape[1] columns of each head; table (2, positions, rot/2): cos, sin
    def rope(self, x: Array, positions: Ints, table: Array, head_dim: int) -> Array: ...
    # mixture of experts
    # kind: "softmax" (over all experts, then take k) | "topk_softmax" (take k, then over those) | "sigmoid" (of each)
    def top_k(self, logits: Array, k: int, kind: str, renormalise: bool) -> "Routing": ...
    def moe(self, x: Array, routing: "Routing", gate: Weight, up: Weight, down: Weight, act: str) -> Array: ...
    # attention over pages; a plan is built once a step and used by every layer; page_tokens is a multiple of 16
    def alloc_pages(self, pages: int, page_tokens: int, kv_heads: int, head_dim: int, dtype: str) -> Any: ...
    def copy_page(self, pool: Any, src: int, dst: int) -> None: ...
    # the bytes of some pages, in the pool's own layout, and back: of use only to a pool of the same shape and type
    def save_pages(self, pool: Any, pages: Ints) -> npt.NDArray[np.uint8]: ...  # a copy
    def load_pages(self, pool: Any, pages: Ints, data: npt.NDArray[np.uint8]) -> None: ...
    # copies: (row, page, slot), further places for a row's keys and values: a token that two branches of a tree share
    def attn_plan(
        self, seqs: Sequence[SeqRows], tables: Sequence[Ints], page_tokens: int,
        copies: Sequence[tuple[int, int, int]] = (),
    ) -> Any: ...
    def append(self, pool: Any, k: Array, v: Array, plan: Any) -> None: ...
    def attention(self, spec: AttnSpec, q: Array, pool: Any, plan: Any) -> Array: ...  # (tokens, heads * head_dim)
    # notes down what this thread asks of the device until it is closed; None: this device cannot
    def record(self, ids: Ints, positions: Ints, outputs: Ints, plan: Any) -> "Recording | None": ...


class Program(Protocol):
    """A recorded step: the same verbs on the same weights and pages, for any rows. Gives the bits of the verbs."""

    def fits(self, positions: Ints) -> bool: ...  # no table that it holds must grow first

    # (rows, columns) of the result, None when it has none; outputs are read only where the step chose rows by them
    def run(self, device: Any, ids: Ints, positions: Ints, outputs: Ints, plan: Any) -> Array: ...


class Recording(Protocol):
    """A step being noted down. Looking at a value, or uploading one, cannot be noted: then there is no program."""

    @property
    def why(self) -> str: ...  # it cannot be replayed; empty when it can

    def close(self, result: Array | None = None) -> Program | None: ...


class Slots(Protocol):
    """Equal places for weights that come and go, in memory that they take only when written to."""

    @property
    def count(self) -> int: ...

    @property
    def nbytes(self) -> int: ...  # of one

    def view(self, slot: int) -> npt.NDArray[np.uint8]: ...  # to be written, on whole pages

    def release(self, slot: int) -> None: ...  # its memory goes back to the system until it is written again


class Bundle(Protocol):
    """Weights that come and go together. `come`, then the bytes are written from any thread, then `arrive`; `leave`.

    `Device.moe` waits for experts that are coming; any other verb wants them here, and refuses what is away.
    """

    def add(self, rows: int, cols: int, format: str) -> Weight: ...  # one more (out, in), before the first `come`

    @property
    def nbytes(self) -> int: ...  # that a slot needs

    @property
    def offsets(self) -> Sequence[int]: ...  # of each weight in the slot

    def come(self, slots: Slots, slot: int, whole: bool) -> None: ...  # whole: every byte will be written

    # stored rows become rows [first, ...) of a weight; first is a multiple of 16. Any thread
    def pack(self, part: int, first: int, stored: Any, index: Ints | None = None) -> None: ...

    def arrive(self, here: bool) -> None: ...  # False: it could not be read

    def leave(self) -> None: ...


class Streams(Protocol):
    """What a device offers that can compute with weights that are not all there."""

    info: DeviceInfo

    def slots(self, count: int, nbytes: int) -> Slots: ...

    def bundle(self) -> Bundle: ...  # an empty one

    def packs(self, fmt: str) -> bool: ...  # a bundle can hold weights stored in this format

    def stalled_s(self) -> float: ...  # spent waiting for weights, per thread, since the last call


@dataclass(frozen=True)
class Routing:
    """Which experts each token goes to. ids (tokens, k) int32, weights (tokens, k) float32: host arrays."""

    ids: Ints
    weights: Floats
