"""`--quant auto`: the fewest bytes under which a held-out text costs at most a given share more perplexity.

First every format alone, fewest bits first, until one is good enough. Then each part of the model (some matrices of a
layer, the embedding, the head) is lowered on its own and its cost measured; that orders all mixed recipes, and a
bisection finds the smallest that is good enough. Every figure of the table is measured. Tensors and figures are kept
as parts, so nothing is computed twice, and an interrupted search goes on.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.convert.gguf_writer import NewTensor, gguf_bytes, write_gguf
from edgewise.convert.grids import grid_of
from edgewise.convert.mixes import Mix, choose, choose_own, find_mix
from edgewise.convert.outputs import check_output, new_file
from edgewise.convert.parts import Parts
from edgewise.convert.passes import Loss
from edgewise.convert.quantisers.rtn import RtnQuantiser
from edgewise.convert.quantising import Narrowing
from edgewise.convert.rows import Rows, chunks, values
from edgewise.convert.safetensors_writer import is_own
from edgewise.convert.widths import Part, Recipe, joined, parts_of, path
from edgewise.convert.writing import Order, Written
from edgewise.kernels import formats
from edgewise.weights.api import Checkpoint, Extent, Header, TensorInfo

LADDER = ("q4_k_s", "q6_k", "q8_0")  # computed from their blocks here; other widths are widened to float32 at load
OWN_LADDER = ("int2:group=64", "int3:group=64", "int4:group=32", "int8:group=32")  # where a folder is written
SMALLER = {"Q4_K": "Q4_0", "Q5_K": "Q5_0"}  # for rows that are no whole super-blocks

Chosen = Mapping[str, str]  # stored name → format
Tell = Callable[[str], None]
Score = Callable[[Checkpoint], Loss]


@dataclass(frozen=True)
class Row:
    """One recipe: bits a weight over all tensors, their bytes, and loss = perplexity / the source's perplexity - 1."""

    recipe: str
    bits: float
    nbytes: int
    perplexity: float
    loss: float


@dataclass(frozen=True)
class PartsCheckpoint:
    """Finished parts as a model that can be loaded, though no file holds it yet."""

    described: Header
    tensors: Mapping[str, TensorInfo]

    def header(self) -> Header:
        return self.described

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        return self.tensors[name]


@dataclass
class Search:
    """tensors: what a GGUF file would hold. score: of the held-out text; text: what tells that text from others.

    narrowing: for formats of few bits; wide ones are rounded to nearest, which nothing improves there. folder: writes
    the parts of a recipe as a folder; None: a GGUF file is written. together: tensors that must have one format.
    """

    order: Order
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Rows]
    layers: int
    narrowing: Narrowing
    parts: Parts
    score: Score
    text: str
    max_loss: float
    ladder: Sequence[str]
    tell: Tell
    folder: Callable[[Checkpoint], Written] | None = None
    together: Sequence[Collection[str]] = ()
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        tied = "output.weight" not in self.tensors
        self._wide = Narrowing(RtnQuantiser(), parts=self.parts)
        self.columns: list[Chosen] = []  # everything in one format of the ladder
        for quant in self.ladder:
            mix = Mix(find_mix(quant).usual)
            self.columns.append({
                name: _fitting(mix, name, rows, layers=self.layers, tied=tied)
                for name, rows in self.tensors.items()
            })  # fmt: skip
        names = [n for n in self.tensors if len({c[n] for c in self.columns}) > 1]
        self.groups = joined(parts_of(names, self.layers), self.together)
        self.weights = sum(prod(rows.shape) for rows in self.tensors.values())

    def run(self, source: Checkpoint) -> tuple[Chosen, Row]:
        """The smallest recipe that was measured to be good enough. Raises BadInput when none is."""
        self.tell("measuring the source")
        self.reference = self._kept("source", lambda: self.score(source))
        self.tell(f"source: perplexity {self.reference.perplexity:.4f}")
        first = self._uniform()
        chosen, row = self.columns[first], self.rows[-1]
        if first and self.groups:
            mixed = self._mixed(first, row)
            chosen, row = mixed if mixed is not None else (chosen, row)
        return chosen, row

    def _uniform(self) -> int:
        """The first format of the ladder that is good enough everywhere."""
        for at, quant in enumerate(self.ladder):
            row = self._measure(quant, self.columns[at])
            if row.loss <= self.max_loss:
                return at
        best = min(self.rows, key=lambda row: row.loss)
        raise BadInput(
            f"No recipe costs at most {self.max_loss:.2%} of perplexity on the held-out text: the best, {best.recipe}, "
            f"costs {best.loss:.2%}. Allow more with --max-loss, or keep the weights in f16."
        )

    def _mixed(self, first: int, uniform: Row) -> tuple[Chosen, Row] | None:
        """The smallest good recipe that takes less than the first format which is good enough everywhere."""
        top = min(first + 1, len(self.columns) - 1)  # the most sensitive part may need more than the first good format
        columns = self.columns[: top + 1]
        self._make({(name, column[name]) for column in columns for name in self.tensors})
        base = self._loss(self.columns[first])
        found = []
        for i, (name, members) in enumerate(self.groups.items()):
            lowered = {**self.columns[first], **{n: self.columns[first - 1][n] for n in members}}
            cost = self._loss(lowered)
            found.append(Part(
                name, [sum(self._bytes(n, c[n]) for n in members) for c in columns],
                [sum(self._error(n, c[n]) for n in members) for c in columns], (cost.nats - base.nats) / base.tokens,
                first - 1,
            ))  # fmt: skip
            self.tell(f"part {i + 1} of {len(self.groups)}: {name}, {found[-1].cost:+.5f} nats a token")
        recipes = [(r, self._chosen(r, columns)) for r in path(found)]
        recipes = [(r, c) for r, c in recipes if self._size(c) < uniform.nbytes]
        bad, good, best = 0, len(recipes), None  # `good` and beyond are good enough, `bad` and below are not
        while good - bad > 1:
            at = (bad + good) // 2
            chosen = recipes[at][1]
            row = self._measure(self._name(recipes[at][0], columns), chosen)
            if row.loss <= self.max_loss:
                good, best = at, (chosen, row)
            else:
                bad = at
        return best

    def _chosen(self, recipe: Recipe, columns: Sequence[Chosen]) -> Chosen:
        parts = zip(recipe, self.groups.values(), strict=True)
        return {**columns[0], **{n: columns[to][n] for to, members in parts for n in members}}

    def _name(self, recipe: Recipe, columns: Sequence[Chosen]) -> str:
        held: Counter[str] = Counter()
        for name, fmt in self._chosen(recipe, columns).items():
            if len(self.tensors[name].shape) > 1:
                held[fmt] += prod(self.tensors[name].shape)
        total = sum(held.values())
        return ", ".join(f"{fmt} {count / total:.0%}" for fmt, count in sorted(held.items()))

    def wider(self, chosen: Chosen) -> list[str]:
        """The parts that have more than the fewest bits, as `part format`."""
        return [f"{part} {chosen[m[0]]}" for part, m in self.groups.items() if chosen[m[0]] != self.columns[0][m[0]]]

    def _measure(self, name: str, chosen: Chosen) -> Row:
        loss = self._loss(chosen)
        nbytes = self._size(chosen)
        more = loss.perplexity / self.reference.perplexity - 1
        row = Row(name, 8 * nbytes / self.weights, nbytes, loss.perplexity, more)
        self.rows.append(row)
        self.tell(f"{row.recipe}: {row.bits:.2f} bits a weight, perplexity {row.perplexity:.4f}, loss {more:+.2%}")
        return row

    def _loss(self, chosen: Chosen) -> Loss:
        self._make(set(chosen.items()))
        what = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()
        return self._kept(f"{what} {self.narrowing.quantiser!r}", lambda: self.score(self._checkpoint(chosen)))

    def _kept(self, what: str, measure: Callable[[], Loss]) -> Loss:
        what = f"loss of {what} on {self.text}"
        if not self.parts.has(what, 16):
            loss = measure()
            self.parts.keep(what, [np.array([loss.tokens, loss.nats], np.float64).view(np.uint8)])
        tokens, nats = np.concatenate(list(self.parts.read(what))).view(np.float64).tolist()
        return Loss(int(tokens), nats, math.exp(nats / tokens))

    def _error(self, name: str, fmt: str) -> float:
        """Squared error of a tensor's weights, each column weighed by its inputs where they are known."""
        tensor, what = self._new(name, fmt), f"error of {self._narrowing(fmt).what(name, fmt)}"
        if not self.parts.has(what, 8):
            seen = self.narrowing.seen(name)
            rows, stored = self.tensors[name], np.concatenate(list(tensor.make()))
            row_bytes = formats.nbytes(fmt, rows.shape[-1])
            total = 0.0
            for first, count in chunks(rows):
                x = values(rows, first, count)
                packed = stored[first * row_bytes : (first + count) * row_bytes]
                e = x - formats.dequantize(fmt, packed, x.size).reshape(x.shape)
                columns = (e * e).sum(0, dtype=np.float64)
                total += float(columns.sum() if seen is None else columns @ seen.square)
            self.parts.keep(what, [np.array([total]).view(np.uint8)])
        return float(np.concatenate(list(self.parts.read(what))).view(np.float64)[0])

    def _narrowing(self, fmt: str) -> Narrowing:
        grid = grid_of(fmt)
        return self.narrowing if grid is not None and grid.high - grid.low < 32 else self._wide

    def _new(self, name: str, fmt: str) -> NewTensor:
        return self._narrowing(fmt).tensors({name: self.tensors[name]}, {name: fmt})[0]

    def _bytes(self, name: str, fmt: str) -> int:
        return formats.nbytes(fmt, prod(self.tensors[name].shape))

    def _size(self, chosen: Chosen) -> int:
        return sum(self._bytes(name, fmt) for name, fmt in chosen.items())

    def _make(self, wanted: set[tuple[str, str]]) -> None:
        """Parts for tensors in formats, layer by layer, errors of the tensor with it while its statistics are there."""
        ordered = sorted(wanted, key=lambda item: (self.narrowing.turn(item[0]), item))
        missing = [
            (self._narrowing(fmt), tensor) for name, fmt in ordered
            if not self.parts.has(self._narrowing(fmt).what(name, fmt), (tensor := self._new(name, fmt)).nbytes)
        ]  # fmt: skip
        total, done = sum(tensor.nbytes for _, tensor in missing), 0

        def more(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if self.order.watch is not None:
                self.order.watch(done, total)

        for narrowing, tensor in missing:
            narrowing.make(tensor, more)
            if len(self.tensors[tensor.name].shape) > 1:
                self._error(tensor.name, tensor.format)

    def _checkpoint(self, chosen: Chosen) -> PartsCheckpoint:
        files: list[Path] = []
        tensors: dict[str, TensorInfo] = {}
        for name, fmt in chosen.items():
            new = self._new(name, fmt)
            tensors[name] = TensorInfo(name, new.shape, fmt, Extent(len(files), 0, new.nbytes))
            files.append(self.parts.path(self._narrowing(fmt).what(name, fmt)))
        arch = self.metadata["general.architecture"]
        header = Header("gguf", arch, self.metadata, tuple(files), self.parts.folder, {}, self.order.path.stem)
        return PartsCheckpoint(header, tensors)

    def save(self, chosen: Chosen) -> Written:
        """The output, of the parts that were measured."""
        if self.folder is not None:
            return self.folder(self._checkpoint(chosen))
        held: Counter[str] = Counter()
        for name, fmt in chosen.items():
            held[fmt] += prod(self.tensors[name].shape)
        most = held.most_common(1)[0][0]
        number = next((find_mix(quant).file_type for quant in self.ladder if find_mix(quant).usual == most), 0)
        metadata = {**self.metadata, "general.file_type": number}
        new = [self._new(name, fmt) for name, fmt in chosen.items()]
        with new_file(self.order.path) as file:
            write_gguf(file, metadata, new)
        return Written(self.order.path, gguf_bytes(metadata, new), dict(held.most_common()))

    @contextmanager
    def room(self) -> Iterator[None]:
        """Refuses what cannot be written before any work, and cleans up as a conversion does."""
        every = {(name, column[name]) for column in self.columns for name in self.tensors}
        work = sum(self._bytes(*item) for item in every) + max(map(self._size, self.columns))
        folder = self.folder is not None
        check_output(self.order.path, work, force=self.order.force, folder=folder, inputs=self.order.inputs)
        with self.narrowing.kept():
            yield


def _fitting(mix: Mix, name: str, rows: Rows, *, layers: int, tied: bool) -> str:
    """As a mix chooses, but rows that are no whole super-blocks keep the width where another format has it."""
    if is_own(mix.usual):
        full = choose(Mix("F16"), name, rows.shape, layers=layers, tied=tied) == "F32"  # a vector, a router
        return choose_own(mix.usual, rows.shape, rows.format, vector=full)
    smaller = SMALLER.get(mix.usual)
    if smaller and len(rows.shape) > 1 and rows.shape[-1] % formats.find(mix.usual).block:
        mix = Mix(smaller)
    return choose(mix, name, rows.shape, layers=layers, tied=tied)
