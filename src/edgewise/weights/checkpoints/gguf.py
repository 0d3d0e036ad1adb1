"""GGUF v2 and v3, one file or a split set: metadata, tokenizer and tensors together. Vocabulary-only files open too.

Paper:  none (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
Exact.
Needs:  nothing
Cost:   the header is read once; no tensor is
Status: kept
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.base import BadInput
from edgewise.base.catalog import nearest
from edgewise.kernels.parsing import GgufPlan, StoredTensor, parse_gguf
from edgewise.weights import bundle
from edgewise.weights.api import Extent, Header, TensorInfo

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")


def split_parts(path: Path) -> list[Path]:
    """All files of the split set that path belongs to, in order; [path] when it is a single file."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    parts = int(match["parts"])
    if not 1 <= parts <= 1000:
        raise BadInput(f"{path}: a split model of {parts} parts is not believable.")
    return [path.parent / f"{match['stem']}-{i:05d}-of-{parts:05d}.gguf" for i in range(1, parts + 1)]


class GgufCheckpoint:
    """Opening validates everything; any part of a split set may be named, the first one's metadata counts.

    `chosen`: the user named the file itself, so it may be a link that leads anywhere.
    """

    def __init__(self, path: Path, *, chosen: bool = True) -> None:
        files = split_parts(path)
        plans = [self._plan(file, chosen and file == path) for file in files]
        self._tensors: dict[str, tuple[int, StoredTensor]] = {}
        for index, plan in enumerate(plans):
            part, count = plan.metadata.get("split.no", 0), plan.metadata.get("split.count", 1)
            # ints only: to compare an array with an int gives an array
            if not isinstance(part, int) or not isinstance(count, int) or (part, count or 1) != (index, len(files)):
                raise BadInput(
                    f"{files[index]}: its name says part {index} of {len(files)}, "
                    f"its metadata part {str(part)[:40]} of {str(count)[:40]}. "
                    "Keep the names that the files were published with."
                )
            for tensor in plan.tensors:
                if tensor.name in self._tensors:
                    raise BadInput(f"{files[index]}: tensor {tensor.name!r} is also in another part.")
                self._tensors[tensor.name] = (index, tensor)
        self._header = self._describe(path, files, plans[0].metadata)

    @staticmethod
    def _plan(path: Path, chosen: bool) -> GgufPlan:
        fd, size = bundle.open_file(path, chosen=chosen)
        try:
            return parse_gguf(fd, size, str(path))
        finally:
            os.close(fd)

    @staticmethod
    def _describe(path: Path, files: Sequence[Path], metadata: dict[str, Any]) -> Header:
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not re.fullmatch(r"[\w.-]{1,64}", architecture):
            raise BadInput(f"{path}: general.architecture is missing or no word, so nothing says what model this is.")
        name = metadata.get("general.name")
        if isinstance(name, str):  # may hold bytes that are not UTF-8, which nobody could print
            name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Header(
            dialect="gguf",
            architecture=architecture,
            config=metadata,
            files=tuple(files),
            folder=path.parent,
            generation={},
            name=name if isinstance(name, str) and name else path.stem,
        )

    def header(self) -> Header:
        return self._header

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Where a tensor lies. Raises BadInput naming the nearest one."""
        found = self._tensors.get(name)
        if found is None:
            hint = nearest(name, list(self._tensors)) if self._tensors else " The file holds only a vocabulary."
            raise BadInput(f"{self._header.files[0]}: there is no tensor {name!r}.{hint}")
        file, tensor = found
        return TensorInfo(name, tensor.shape, tensor.format, Extent(file, tensor.offset, tensor.nbytes))
