"""What a model wants from a checkpoint, written down instead of read: which stored rows each of its weights comes from.

A model file asks its loader for weights in the same order whatever the dialect. So the conversion between two dialects
needs no table: build the model against a recorder of each, and pair the two lists.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import Array, Device, Ints, Weight
from edgewise.models.names import Names
from edgewise.models.ropes import RopeSettings

Rowlist = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """One weight of the model: (rows, columns), or (length,) for a vector. `places`: where its rows lie, in order."""

    name: str
    shape: tuple[int, ...]
    places: tuple[tuple[str, Rowlist], ...]  # stored tensor, rows of it; for a vector: its elements
    plus: float = 0.0  # the model's numbers are the stored ones plus this


@dataclass
class Recorder:
    """A models.api.Loader that reads nothing. has: which optional weights there are, by canonical name.

    stacked: experts are one stored tensor a layer and part, as GGUF has them; else one each, or as `names` finds them.
    """

    names: Names
    has: Callable[[str], bool]
    stacked: bool
    wanted: list[Wanted] = field(default_factory=list)
    stored: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shape of every stored tensor that was asked for
    ropes: list[RopeSettings] = field(default_factory=list)
    device: Device = None  # type: ignore[assignment]

    @property
    def dialect(self) -> str:
        return self.names.dialect

    def _stored(self, name: str) -> str:
        return self.names.find(name) or self.names.usual(name)

    def weight(self, name: str, shape: tuple[int, ...], rows: Ints | None = None, stored_rows: int = 0) -> Weight:
        stored = self._stored(name)
        self.stored[stored] = (stored_rows or shape[0], *shape[1:])
        index = np.arange(shape[0]) if rows is None else rows.astype(np.int64)
        self.wanted.append(Wanted(name, shape, ((stored, index),)))

    def vector(self, name: str, length: int, rows: Ints | None = None, plus: float = 0.0) -> Array:
        stored = self._stored(name)
        self.stored[stored] = (length,)
        index = np.arange(length) if rows is None else rows.astype(np.int64)
        self.wanted.append(Wanted(name, (length,), ((stored, index),), plus))

    def experts(self, layer: int, part: str, count: int, shape: tuple[int, int]) -> Weight:
        rows, columns = shape
        at = f"layers.{layer}."
        places: list[tuple[str, Rowlist]] = []
        if self.stacked or self.names.find(f"{at}experts.{part}"):
            stored = self._stored(f"{at}experts.{part}")
            self.stored[stored] = (count, rows, columns)
            places = [(stored, np.arange(count * rows))]
        elif part != "down" and self.names.find(f"{at}experts.gate_up"):
            stored = self._stored(f"{at}experts.gate_up")
            self.stored[stored] = (count, 2 * rows, columns)
            half = np.arange(rows) + (rows if part == "up" else 0)
            places = [(stored, (np.arange(count)[:, None] * 2 * rows + half).ravel())]
        else:
            for e in range(count):
                stored = self._stored(f"{at}expert.{e}.{part}")
                self.stored[stored] = (rows, columns)
                places.append((stored, np.arange(rows)))
        self.wanted.append(Wanted(f"{at}experts.{part}", (count * rows, columns), tuple(places)))

    def one_expert(self, name: str, shape: tuple[int, int]) -> Weight:
        self.weight(name, shape)

    def rope(self, settings: RopeSettings, context: int) -> Any:
        if settings not in self.ropes:
            self.ropes.append(settings)
