"""Scaling the columns of a matrix and undoing it in whatever made its inputs, so that the model stays the same.

Four places allow it exactly: a norm before q, k and v; a norm before gate and up; the rows of v before o (heads that
share a value share its scale); the rows of up before down, as act(gate) * up is linear in up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewise.convert.quantisers.api import Statistics
from edgewise.convert.recording import Recorder, Wanted
from edgewise.convert.rows import ComputedRows, Rows, row_count, values
from edgewise.kernels.api import Floats
from edgewise.models.api import ModelSpec


@dataclass(frozen=True)
class Fold:
    """Columns of `matrices` are multiplied by scales (inputs,), `before` divided: vectors, or rows of matrices.

    key: the canonical name of the first matrix, whose inputs are those of all.
    shared: how many neighbouring heads of the inputs share one part of `before`, `head` columns each.
    """

    key: str
    before: tuple[Wanted, ...]
    matrices: tuple[Wanted, ...]
    shared: int = 1
    head: int = 1

    def tied(self, scales: Floats) -> Floats:
        """(inputs,) averaged over the heads that share, still (inputs,)."""
        heads = scales.reshape(-1, self.shared, self.head)
        return np.broadcast_to(heads.mean(1, keepdims=True), heads.shape).reshape(-1).astype(np.float32)

    def once(self, scales: Floats) -> Floats:
        """Tied scales (inputs,) → one for each row of `before`."""
        return np.ascontiguousarray(scales.reshape(-1, self.shared, self.head)[:, 0].reshape(-1))


def folds(recorder: Recorder, spec: ModelSpec) -> Iterator[Fold]:
    """Every place of a model where scales can be folded."""
    named: dict[str, list[Wanted]] = {}
    for wanted in recorder.wanted:
        named.setdefault(wanted.name, []).append(wanted)
    for layer in range(spec.layers):
        at = f"layers.{layer}."

        def get(*names: str, at: str = at) -> tuple[Wanted, ...]:
            return tuple(w for name in names for w in named.get(f"{at}{name}", ()))

        qkv = get("qkv") or get("q", "k", "v")
        gate_up = get("gate_up") or get("gate", "up")
        attn_norm, ffn_norm, o, down = (get(name) for name in ("attn_norm", "ffn_norm", "o", "down"))
        if attn_norm and len(qkv) == 3:
            yield Fold(qkv[0].name, attn_norm, qkv)
        if o and len(qkv) == 3:
            yield Fold(f"{at}o", (qkv[2], *get("v.bias")), o, spec.heads // spec.kv_heads, spec.head_dim)
        if len(gate_up) == 2 and down:
            if ffn_norm:
                yield Fold(gate_up[0].name, ffn_norm, gate_up)
            yield Fold(f"{at}down", (gate_up[1], *get("up.bias")), down)


@dataclass
class Folding:
    """Scales by fold, found by `find` when first asked for; None: this place stays as it is."""

    recorder: Recorder
    spec: ModelSpec
    find: Callable[[Fold], Floats | None]
    found: dict[str, Floats | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns: dict[str, list[Fold]] = {}  # stored name → folds that multiply its columns
        self.rows: dict[str, list[tuple[Fold, Wanted]]] = {}  # stored name → folds that divide some of its rows
        for fold in folds(self.recorder, self.spec):
            for wanted in fold.matrices:
                for stored, _ in wanted.places:
                    if fold not in self.columns.setdefault(stored, []):
                        self.columns[stored].append(fold)
            for wanted in fold.before:
                for stored, _ in wanted.places:
                    self.rows.setdefault(stored, []).append((fold, wanted))

    def scales(self, fold: Fold) -> Floats | None:
        if fold.key not in self.found:
            self.found[fold.key] = self.find(fold)
        return self.found[fold.key]

    def divisor(self, stored: str) -> Floats | None:
        """What the inputs of a stored matrix are divided by, (columns,)."""
        product: Floats | None = None
        for fold in self.columns.get(stored, ()):
            scales = self.scales(fold)
            if scales is not None:
                product = scales if product is None else product * scales
        return product

    def tensors(self, tensors: Mapping[str, Rows]) -> dict[str, Rows]:
        """The same model with scales folded in; nothing is read before it is asked for."""
        touched = {*self.columns, *self.rows}
        return {name: self._folded(name, rows) if name in touched else rows for name, rows in tensors.items()}

    def _folded(self, name: str, rows: Rows) -> Rows:
        if len(rows.shape) == 1:
            return ComputedRows(rows.shape, lambda first, count: self._vector(name, rows))

        def make(first: int, count: int) -> Floats:
            w = values(rows, first, count)
            columns = self.divisor(name)
            if columns is not None:
                w = w * columns
            for fold, wanted in self.rows.get(name, ()):
                scales = self.scales(fold)
                if scales is not None:
                    whole = np.ones(row_count(rows), np.float32)
                    whole[_rows_in(wanted, name)] = fold.once(scales)
                    w = w / whole[first : first + count, None]
            return w

        return ComputedRows(rows.shape, make)

    def _vector(self, name: str, rows: Rows) -> Floats:
        v = values(rows, 0, row_count(rows)).reshape(-1)
        for fold, wanted in self.rows[name]:
            scales = self.scales(fold)
            if scales is not None:
                plus = np.float32(wanted.plus)
                divisor = np.empty_like(v)
                divisor[_rows_in(wanted, name)] = fold.once(scales)
                v = (v + plus) / divisor - plus
        return v[None]


def _rows_in(wanted: Wanted, stored: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which rows of a stored tensor are the weight's, in the weight's own order."""
    return np.concatenate([rows for name, rows in wanted.places if name == stored])


def tied_statistics(fold: Fold, seen: Statistics) -> Statistics:
    """With mean sizes averaged over the heads that share a scale."""
    return Statistics(seen.tokens, fold.tied(seen.size), seen.square, seen.hessian)


def weights_of(wanted: Sequence[Wanted], tensors: Mapping[str, Rows]) -> list[Floats]:
    """The numbers of whole weights, (rows, columns) each, in the model's own order of rows."""
    out = []
    for one in wanted:
        held = [values(tensors[name], 0, row_count(tensors[name]))[rows] for name, rows in one.places]
        out.append(np.concatenate(held))
    return out
