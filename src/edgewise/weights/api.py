"""L3's contract for weights: a checkpoint says what the bytes mean, a source fetches them. Meaning, never bytes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Extent:
    """A run of bytes in one file of the checkpoint."""

    file: int  # index into Header.files
    offset: int
    nbytes: int


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor. shape is numpy order, outermost first: a linear weight is (out, in)."""

    name: str
    shape: tuple[int, ...]
    format: str  # a FormatId name: "F32", "F16", "BF16", "Q4_0", ...
    extent: Extent


@dataclass(frozen=True)
class Header:
    """Everything a checkpoint says besides its tensors.

    dialect "hf": config is config.json, generation is generation_config.json, tokenizer files are read from `folder`.
    dialect "gguf": config is the metadata table (keys as in the file, arrays as numpy arrays or lists).
    """

    dialect: str  # "hf" | "gguf"
    architecture: str  # HF model_type or GGUF general.architecture
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    folder: Path
    generation: Mapping[str, Any]
    name: str


class Checkpoint(Protocol):
    """safetensors directory, gguf file. Opening validates everything; nothing is trusted afterwards."""

    def header(self) -> Header: ...

    def names(self) -> Sequence[str]: ...

    def info(self, name: str) -> TensorInfo: ...  # raises BadInput naming the nearest tensor


class Source(Protocol):
    """Fetches bytes. A failed or short read raises BadInput that names file and offset."""

    def read(self, extent: Extent, offset: int, nbytes: int) -> memoryview: ...  # offset within the extent

    def read_into(self, extent: Extent, offset: int, into: memoryview) -> None: ...

    def glance(self, extent: Extent, offset: int, nbytes: int) -> memoryview: ...  # until the thread's next read

    def close(self) -> None: ...


class Key(NamedTuple):
    """What a bundle of weights is: one expert of a layer, or (expert -1) the layer's weights."""

    layer: int
    part: str
    expert: int = -1

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.part}" + (f" {self.expert}" if self.expert >= 0 else "")


Keys = npt.NDArray[np.int64]


class NeuronResidency(Protocol):
    """Which of the neurons at hand leave, many at once. A neuron is a number below the count in all layers."""

    token: int  # how many were begun

    def come(self, keys: Keys) -> None: ...
    def use(self, keys: Keys) -> None: ...
    def leave(self, keys: Keys) -> None: ...
    def expired(self, pinned: npt.NDArray[np.bool_]) -> Keys: ...  # who leaves though there is room
    def oldest(self, want: int, pinned: npt.NDArray[np.bool_]) -> Keys: ...  # at most `want` of those not pinned


class Residency(Protocol):
    """Who leaves when a bundle needs a slot. A bundle is a number below `count`; a layer's are consecutive."""

    keeps: bool  # False: nothing stays longer than it is pinned

    def came(self, key: int) -> None: ...  # it has a slot now, because it is wanted or because of a hint

    def used(self, key: int) -> None: ...  # asked for; it has a slot

    def left(self, key: int) -> None: ...

    # the router's shares of the bundles [first, first + len(shares)), chosen or not, in a pass of few tokens
    def routed(self, first: int, shares: Sequence[float]) -> None: ...

    # who gives way to `incoming`: wanted now (then somebody must, if anybody may), or guessed; None: nobody
    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None: ...


class Prefetcher(Protocol):
    """What the layer after this one will probably want. Guesses cost reading, never a wrong result."""

    # Called when a layer of experts has chosen, in a pass of few tokens. gate(): what the next such layer would
    # choose for the rows at hand, the likeliest first. The guess: experts of that layer, the likeliest first
    def wants(self, layer: int, chosen: Sequence[int], gate: Callable[[], Sequence[int]]) -> Sequence[int]: ...
