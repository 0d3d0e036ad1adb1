"""An accelerator that knows only per-tensor INT8 and fixed shapes, emulated, with shadow outliers on the host.

Paper:  llm.npu (mllm-NPU), arXiv 2407.05858, §3.3: x·w = clip(x / s)·w on the accelerator + overflow(x)·w on the CPU
Approximate: 8-bit weights and activations with one scale a tensor; `edgewise bench shadow` prints the perplexity.
Needs:  a pass over calibration text between `profile` and `freeze`; before that it computes as the inner device does
Cost:   emulated: numpy on one core. Holds the weights three times (inner, float32, int8); no speed is claimed
Status: trial
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.api import Array, Device, Floats, Ints, Place, ReadAt, Routing
from edgewise.kernels.devices import DEVICES

EXACT_COLUMNS = 1024  # products of so many int8 pairs add up below 2^24, so float32 holds every partial sum
HOT_SHARE = 0.003  # of a tensor's channels that may overflow (paper: 0.1 to 0.3 %)


@dataclass
class NpuWeight:
    """A linear weight (out, in): the inner device's, its numbers, and what profiling has seen of its inputs."""

    inner: Any
    values: Floats
    peaks: Floats = field(init=False)  # (in,) largest |x| a channel had
    codes: Floats = field(init=False)  # (out, in) int8 values, as float32 for an exact product
    scale: float = field(init=False)
    step: float = 0.0  # of the activations; 0: not frozen, or never profiled: stays on the host
    overflow: npt.NDArray[np.int64] = field(init=False)  # (in,) how often a channel overflowed
    shadow: bool = False

    def __post_init__(self) -> None:
        self.peaks = np.zeros(self.values.shape[1], np.float32)
        self.overflow = np.zeros(self.values.shape[1], np.int64)
        self.scale = float(np.abs(self.values).max(initial=0)) / 127 or 1.0
        self.codes = np.rint(self.values / np.float32(self.scale)).astype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def importance(self) -> float:
        """How far the largest channel stands out of the rest."""
        return float(self.peaks.max(initial=0)) / (_rest(self.peaks) or 1.0)


def _rest(peaks: Floats) -> float:
    """The largest peak when the hot channels are left out."""
    hot = ceil(HOT_SHARE * len(peaks))
    return float(np.partition(peaks, -hot - 1)[-hot - 1])


class NpuDevice:
    """Linear layers on the emulated accelerator; everything else, the embedding and a tied head on `inner`.

    chunk: rows of the one shape it computes; fewer rows are padded, and the padding is counted.
    """

    def __init__(self, threads: int | None = None, chunk: int = 256, inner: str = "cpu") -> None:
        if chunk < 1:
            raise BadInput(f"An accelerator's chunk has at least one row, not {chunk}.")
        self.inner: Device = DEVICES.build(inner, threads=threads)
        self.notes = ["The emulated accelerator is not calibrated here: everything is computed on the host."]
        self.chunk = chunk
        self.info = replace(self.inner.info, name="npu (emulated)")
        self.weights: list[NpuWeight] = []
        self.rows_used = 0
        self.rows_padded = 0
        self._profiling = False

    def __repr__(self) -> str:
        return f"NpuDevice(chunk={self.chunk}, inner={self.inner!r})"

    def __getattr__(self, name: str) -> Any:  # the verbs that stay on the host
        return getattr(self.inner, name)

    def profile(self) -> None:
        """From now on the inputs' peaks are watched; nothing is rounded."""
        self._profiling = True
        self.notes.clear()
        for w in self.weights:
            w.step = 0.0

    def freeze(self, shadow: float = 1.0) -> None:
        """Fixes the activation scales. shadow: share of the weights, those with the largest outliers first, that keep
        a shadow; the others take the scale of their largest outlier, as plain per-tensor quantisation does."""
        if not 0 <= shadow <= 1:
            raise BadInput(f"The share of weights with shadow outliers is between 0 and 1, not {shadow}.")
        self._profiling = False
        seen = [w for w in self.weights if w.peaks.any()]
        if not seen:
            raise BadInput("Nothing was profiled: call profile(), run a calibration text, then freeze().")
        seen.sort(key=lambda w: -w.importance)
        for rank, w in enumerate(seen):
            w.shadow = rank < round(shadow * len(seen))
            w.step = (_rest(w.peaks) if w.shadow else float(w.peaks.max())) / 127
            w.overflow[:] = 0
        self.rows_used = self.rows_padded = 0

    def load(
        self, shape: Sequence[int], fmt: str, read: ReadAt, rows: Ints | None = None, place: Place | None = None, *,
        scales: Floats | None = None, into: str | None = None,
    ) -> NpuWeight:
        inner = self.inner.load(shape, fmt, read, rows, scales=scales, into=into)
        values = formats.dequantize(fmt, read(0, formats.nbytes(fmt, prod(shape))), prod(shape)).reshape(shape)
        if scales is not None:
            values = values * np.repeat(scales, formats.SPAN, axis=1)[:, : shape[1]]
        weight = NpuWeight(inner, values if rows is None else values[rows])
        self.weights.append(weight)
        return weight

    def experts(self, weights: Sequence[NpuWeight]) -> Any:
        return self.inner.experts([w.inner for w in weights])

    def embed(self, table: NpuWeight, ids: Ints) -> Array:
        if table in self.weights:  # a tied head stays with its embedding, on the host
            self.weights.remove(table)
        return self.inner.embed(table.inner, ids)

    def linear(self, x: Array, w: NpuWeight, bias: Array | None = None, add: Array | None = None) -> Array:
        if self._profiling:
            np.maximum(w.peaks, np.abs(self.inner.download(x)).max(0, initial=0), out=w.peaks)
        if not w.step:
            return self.inner.linear(x, w.inner, bias, add)
        y = self._multiply(np.asarray(self.inner.download(x)), w)
        for more in (bias, add):
            if more is not None:
                y = y + self.inner.download(more)
        return self.inner.upload(y)

    def _multiply(self, x: Floats, w: NpuWeight) -> Floats:
        """(rows, in) → (rows, out); every row by itself, so that the chunk it came in does not matter."""
        parts = [self._chunk(x[at : at + self.chunk], w) for at in range(0, len(x), self.chunk)]
        self.rows_used += len(x)
        self.rows_padded += len(parts) * self.chunk - len(x)
        return np.concatenate(parts) if parts else np.zeros((0, w.shape[0]), np.float32)

    def _chunk(self, x: Floats, w: NpuWeight) -> Floats:
        codes = np.clip(np.rint(x / np.float32(w.step)), -127, 127)
        sums = np.zeros((len(x), w.shape[0]), np.float64)
        for at in range(0, x.shape[1], EXACT_COLUMNS):
            part = slice(at, at + EXACT_COLUMNS)
            sums += codes[:, part] @ w.codes[:, part].T
        y = (sums * (w.step * w.scale)).astype(np.float32)
        over = np.abs(x) > np.float32(127.5 * w.step)
        if w.shadow and over.any():
            channels = np.flatnonzero(over.any(0))
            w.overflow[channels] += over[:, channels].sum(0)
            for channel in channels:  # one at a time: the order of additions is the channels'
                # What the accelerator made of an overflowing value goes, its rounded weights included; x·w comes.
                taken = np.where(over[:, channel], codes[:, channel] * np.float32(w.step * w.scale), 0)
                put = np.where(over[:, channel], x[:, channel], 0)
                y += put[:, None] * w.values[:, channel] - taken[:, None] * w.codes[:, channel]
        return y

    def qkv(
        self, x: Array, q: NpuWeight, k: NpuWeight, v: NpuWeight, *, q_bias: Array | None = None,
        k_bias: Array | None = None, v_bias: Array | None = None, norm: Array | None = None,
        q_norm: Array | None = None, k_norm: Array | None = None, eps: float = 0.0, positions: Ints | None = None,
        table: Array | None = None, head_dim: int = 0,
    ) -> tuple[Array, Array, Array]:
        if norm is not None:
            x = self.inner.rms_norm(x, norm, eps)
        rows = [self.linear(x, q, q_bias), self.linear(x, k, k_bias), self.linear(x, v, v_bias)]
        for i, weight in enumerate((q_norm, k_norm)):
            if weight is not None:
                rows[i] = self.inner.rms_norm(rows[i], weight, eps)
            if table is not None and positions is not None:
                rows[i] = self.inner.rope(rows[i], positions, table, head_dim)
        return rows[0], rows[1], rows[2]

    def ffn(
        self, x: Array, gate: NpuWeight, up: NpuWeight, down: NpuWeight, act: str, *,
        gate_bias: Array | None = None, up_bias: Array | None = None, down_bias: Array | None = None,
        norm: Array | None = None, eps: float = 0.0, add: Array | None = None,
    ) -> Array:
        if norm is not None:
            x = self.inner.rms_norm(x, norm, eps)
        hidden = self.inner.act_mul(self.linear(x, gate, gate_bias), self.linear(x, up, up_bias), act)
        return self.linear(hidden, down, down_bias, add)

    def moe(self, x: Array, routing: Routing, gate: Any, up: Any, down: Any, act: str) -> Array:
        return self.inner.moe(x, routing, gate, up, down, act)
