"""Writes GGUF version 3: metadata, tensor table, then each tensor's bytes as its maker yields them.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Only the table is held in memory.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.formats import Bytes

ALIGNMENT = 32
MAGIC = b"GGUF"
VERSION = 3
_LONGEST_NAME = 63  # llama.cpp keeps names in 64 bytes
_STRING, _ARRAY = 8, 9
_KINDS: dict[str, int] = {
    "uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7,
    "uint64": 10, "int64": 11, "float64": 12,
}  # fmt: skip

Progress = Callable[[int], None]  # bytes written since the last call


@dataclass(frozen=True)
class NewTensor:
    """One tensor to write: shape outermost first, `make` yields its stored bytes in order.

    copied: they are the source's own, so making them again costs no more than reading.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    make: Callable[[], Iterator[Bytes]]
    copied: bool = False

    @property
    def nbytes(self) -> int:
        return formats.nbytes(self.format, prod(self.shape))

    def write(self, file: BinaryIO, progress: "Progress | None" = None) -> None:
        """Raises BadInput when the maker yields more or fewer bytes than shape and format need."""
        written = 0
        for piece in self.make():
            file.write(piece.data)
            written += piece.nbytes
            if progress is not None:
                progress(piece.nbytes)
        if written != self.nbytes:
            raise BadInput(f"Tensor '{self.name}' came to {written} bytes but needs {self.nbytes}.")


def gguf_bytes(metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> int:
    """How large the file will be."""
    return len(_head(metadata, tensors)) + sum(_aligned(t.nbytes) for t in tensors)


def write_gguf(
    file: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[NewTensor], progress: Progress | None = None
) -> None:
    """Metadata values: bool, int (unsigned 32 bits where it fits), float (32 bits), str, numpy values, lists.

    Raises BadInput when a tensor's maker yields more or fewer bytes than its shape and format need.
    """
    file.write(_head(metadata, tensors))
    for tensor in tensors:
        tensor.write(file, progress)
        file.write(bytes(_aligned(tensor.nbytes) - tensor.nbytes))


def _head(metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _typed(key, value)]
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        if len(name) > _LONGEST_NAME:
            raise BadInput(f"Tensor name '{tensor.name}' is longer than {_LONGEST_NAME} bytes, the most GGUF takes.")
        number = formats.find(tensor.format).ggml_type
        sizes = tensor.shape[::-1]  # GGUF lists the innermost dimension first
        parts.append(_text(tensor.name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, number, offset))
        offset += _aligned(tensor.nbytes)
    head = b"".join(parts)
    return head + bytes(_aligned(len(head)) - len(head))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")  # vocabularies may hold bytes that are no UTF-8
    return struct.pack("<Q", len(data)) + data


def _scalar(key: str, value: Any) -> np.generic:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    if isinstance(value, int):
        if 0 <= value < 2**32:
            return np.uint32(value)
        if -(2**31) <= value < 0:
            return np.int32(value)
        if -(2**63) <= value < 2**64:
            return np.uint64(value) if value > 0 else np.int64(value)
    raise BadInput(f"Metadata '{key}' is {value!r}, which GGUF cannot hold.")


def _kind(key: str, kind: npt.DTypeLike) -> int:
    number = _KINDS.get(np.dtype(kind).name)
    if number is None:
        raise BadInput(f"Metadata '{key}' holds {np.dtype(kind)}, which GGUF cannot.")
    return number


def _typed(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, np.ndarray) or not isinstance(value, (bool, int, float, np.generic)):
        return struct.pack("<I", _ARRAY) + _array(key, value)
    scalar = _scalar(key, value)
    return struct.pack("<I", _kind(key, scalar.dtype)) + scalar.tobytes()


def _array(key: str, value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return struct.pack("<IQ", _kind(key, value.dtype), len(value)) + little.tobytes()
    try:
        items = list(value)
    except TypeError:
        raise BadInput(f"Metadata '{key}' is a {type(value).__name__}, which GGUF cannot hold.") from None
    if items and isinstance(items[0], (list, np.ndarray)):
        return struct.pack("<IQ", _ARRAY, len(items)) + b"".join(_array(key, item) for item in items)
    if all(isinstance(item, str) for item in items):
        return struct.pack("<IQ", _STRING, len(items)) + b"".join(map(_text, items))
    if all(isinstance(item, bool) for item in items):
        return _array(key, np.array(items, np.bool_))
    if all(isinstance(item, int) for item in items):
        small = all(-(2**31) <= item < 2**31 for item in items)
        return _array(key, np.array(items, np.int32 if small else np.int64))
    return _array(key, np.array(items, np.float32))
