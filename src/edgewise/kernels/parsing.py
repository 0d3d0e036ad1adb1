"""The typed face of csrc/parse: open file → plan. Raises BadInput or Unsupported with the caller's name for the file.

There is no second parser of these bytes in Python (rule D1). Lengths are checked against the file's size before
anything is allocated; a plan and everything made from it take at most the file's size + 64 MB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from edgewise import _native
from edgewise.base import BadInput, Unsupported

# GGUF's numbering of metadata types; 8 is a string, 9 an array.
_NUMBERS: dict[int, str] = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING = 8
JSON_DEPTH = 64
JSON_VALUES = 500_000


class StoredTensor(NamedTuple):
    """One tensor of a file. shape is outermost first; offset counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    nbytes: int


class Strings(Sequence[str]):
    """An array of strings from a GGUF file, decoded when asked for, so that a million of them cost what the file costs.

    Vocabularies hold pieces of characters: bytes that are not UTF-8 become lone surrogates ("surrogateescape"), and
    `text.encode("utf-8", "surrogateescape")` or `raw(i)` give the stored bytes back. `list(strings)` is a plain list.
    """

    def __init__(self, blob: bytes, ends: npt.NDArray[np.uint32]) -> None:
        self._blob = blob
        self._ends = ends  # (count,) where each string ends in blob

    @property
    def stored(self) -> tuple[bytes, npt.NDArray[np.uint32]]:
        """All strings one after the other, and where each ends."""
        return self._blob, self._ends

    def are_utf8(self) -> bool:
        return _native.strings_are_utf8(self._blob, self._ends)

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, index: int) -> bytes:
        """The stored bytes of one string."""
        at = range(len(self))[index]
        return self._blob[int(self._ends[at - 1]) if at else 0 : int(self._ends[at])]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return self.raw(index).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        blob, start, step = self._blob, 0, 65536
        for first in range(0, len(self._ends), step):  # in runs: a list of a million Python integers is 32 MB
            for end in self._ends[first : first + step].tolist():
                yield blob[start:end].decode("utf-8", "surrogateescape")
                start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Strings({self[:5]!r}, {len(self)} in all)"


@dataclass(frozen=True)
class GgufPlan:
    """What a GGUF file holds. Arrays of numbers are read-only numpy arrays, of strings Strings, of arrays lists."""

    metadata: dict[str, Any]
    tensors: list[StoredTensor]
    version: int
    alignment: int


@dataclass(frozen=True)
class SafetensorsPlan:
    metadata: dict[str, str]
    tensors: list[StoredTensor]  # in the order of their bytes


def _result(name: str, answer: tuple[str, str, Any]) -> Any:
    verdict, sentence, result = answer
    if verdict == "ok":
        return result
    raise (Unsupported if verdict == "unsupported" else BadInput)(f"{name}: {sentence}")


def _value(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    element, payload = value
    if element == _STRING:
        blob, ends = payload
        return Strings(blob, np.frombuffer(ends, np.uint32))
    if element in _NUMBERS:
        return np.frombuffer(payload, _NUMBERS[element])
    return [_value(item) for item in payload]


def parse_gguf(fd: int, nbytes: int, name: str) -> GgufPlan:
    """The plan of an open GGUF file of `nbytes` bytes; `name` is how errors call it."""
    metadata, tensors, version, alignment = _result(name, _native.gguf(fd, nbytes))
    for key, value in metadata.items():
        metadata[key] = _value(value)
    return GgufPlan(metadata, [StoredTensor(*t) for t in tensors], version, alignment)


def parse_safetensors(fd: int, nbytes: int, name: str) -> SafetensorsPlan:
    """The plan of an open safetensors file of `nbytes` bytes; `name` is how errors call it."""
    metadata, tensors = _result(name, _native.safetensors(fd, nbytes))
    return SafetensorsPlan(metadata, [StoredTensor(*t) for t in tensors])


def parse_json(text: bytes, name: str, *, depth: int = JSON_DEPTH, values: int = JSON_VALUES) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or Infinity, at most `depth` levels, `values` values."""
    return _result(name, _native.json(text, depth, values))


def gguf_formats() -> dict[str, tuple[int, int, int]]:
    """Every tensor format a GGUF file may name: name → (id, elements per block, bytes per block)."""
    table = {i: _native.gguf_format(i) for i in range(256)}
    return {entry[0]: (i, entry[1], entry[2]) for i, entry in table.items() if entry is not None}
