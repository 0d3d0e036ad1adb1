"""L3's contract for weights: a checkpoint says what the bytes mean, a source fetches them. Meaning, never bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


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

    def close(self) -> None: ...
