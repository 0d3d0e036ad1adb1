"""A folder whose experts, or layers, lie as they are computed with: a bundle after the other, on whole pages, summed.

Paper:  none (the layout follows LLM in a flash, arXiv 2312.11514: what is used together lies together)
Exact.
Needs:  another checkpoint in the folder for everything that is not streamed
Cost:   as that one; the list of bundles is held in memory
Status: kept
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.parsing import parse_safetensors
from edgewise.weights import bundle
from edgewise.weights.api import Checkpoint, Extent, Header, Key, TensorInfo
from edgewise.weights.neurons import LaidNeurons

LIST = "streamed.json"
BUNDLES = "streamed.safetensors"
VERSION = 1
PAGE = 4096
_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class Laid:
    """One bundle: where it lies, the (rows, columns, format) of its weights in order, the XXH64 of each piece."""

    extent: Extent
    parts: tuple[tuple[int, int, str], ...]
    checksums: tuple[int, ...]


class StreamedCheckpoint:
    """inner: what the folder has besides bundles. `layout` says where each bundle lies, `piece_bytes` how it is cut."""

    def __init__(self, inner: Checkpoint, folder: Path) -> None:
        where = folder / LIST
        listed = bundle.read_json(where, _LIST_BYTES)
        if listed.get("version") != VERSION:
            raise BadInput(f"{where}: version {str(listed.get('version'))[:20]} of the streamed layout is not known.")
        self.inner = inner
        header = inner.header()
        path = bundle.member(folder, BUNDLES)
        self._header = replace(header, files=(*header.files, path))
        try:
            self.piece_bytes = int(listed["piece_bytes"])
            tensors = listed["tensors"].items()
            self._tensors = {name: (tuple(map(int, shape)), str(fmt)) for name, (shape, fmt) in tensors}
            self.layout = dict(_laid(listed["bundles"], path, len(header.files), self.piece_bytes))
            self.neurons = list(_neurons(listed.get("neurons", ()), path, len(header.files)))
            for shape, fmt in self._tensors.values():
                formats.nbytes(fmt, shape[-1])
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise BadInput(f"{where}: this list of bundles is broken ({problem}). Convert the model again.") from None
        self._end = path.stat().st_size

    def header(self) -> Header:
        return self._header

    def names(self) -> Sequence[str]:
        return [*self.inner.names(), *self._tensors]

    def info(self, name: str) -> TensorInfo:
        """A streamed tensor has shape and format, but no bytes of its own: its extent begins at the file's end."""
        if name not in self._tensors:
            return self.inner.info(name)
        shape, fmt = self._tensors[name]
        rows = 1
        for size in shape[:-1]:
            rows *= size
        nbytes = rows * formats.nbytes(fmt, shape[-1])
        return TensorInfo(name, shape, fmt, Extent(len(self._header.files) - 1, self._end, nbytes))


def _laid(listed: Sequence[Mapping[str, Any]], path: Path, file: int, piece: int) -> Any:
    """(key, Laid) of every bundle; each compared with the container's own table."""
    fd, size = bundle.open_file(path)
    with bundle.closing(fd):
        plan = parse_safetensors(fd, size, str(path))
    held = {tensor.name: tensor for tensor in plan.tensors}
    for one in listed:
        key = Key(int(one["layer"]), str(one["part"]), int(one["expert"]))
        tensor = held[bundle_name(key)]
        sums = tuple(int(text, 16) for text in one["checksums"])
        if tensor.offset % PAGE or tensor.nbytes % PAGE or piece <= 0 or len(sums) != -(-tensor.nbytes // piece):
            raise ValueError(f"{key} does not lie on whole pages, or lacks checksums")
        parts = tuple((int(rows), int(cols), str(fmt)) for rows, cols, fmt in one["parts"])
        yield key, Laid(Extent(file, tensor.offset, tensor.nbytes), parts, sums)


def _neurons(listed: Sequence[Mapping[str, Any]], path: Path, file: int) -> Iterator[LaidNeurons]:
    """The layers whose neurons lie one by one; their sums are read."""
    if not listed:
        return
    fd, size = bundle.open_file(path)
    with bundle.closing(fd):
        held = {tensor.name: tensor for tensor in parse_safetensors(fd, size, str(path)).tensors}
        for one in listed:
            layer, count, dim, step = (int(one[name]) for name in ("layer", "count", "dim", "step"))
            fmt = str(one["format"])
            row, rows, sums = formats.nbytes(fmt, dim), held[neurons_name(layer)], held[f"{neurons_name(layer)}.sums"]
            if step % PAGE or not 3 * row <= step or rows.offset % PAGE or rows.nbytes != count * step:
                raise ValueError(f"the neurons of layer {layer} do not lie on whole pages")
            data = os.pread(fd, 16 * count, sums.offset)
            if sums.nbytes != 16 * count or len(data) != 16 * count or count <= 0:
                raise ValueError(f"the neurons of layer {layer} lack checksums")
            checked = np.frombuffer(data, "<u8").astype(np.uint64).reshape(count, 2)
            yield LaidNeurons(layer, Extent(file, rows.offset, rows.nbytes), count, dim, fmt, step, row, checked)


def neurons_name(layer: int) -> str:
    return f"layers.{layer}.neurons"


def bundle_name(key: Key) -> str:
    return f"layers.{key.layer}.{key.part}" + (f".{key.expert}" if key.expert >= 0 else "")
