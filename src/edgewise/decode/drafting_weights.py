"""Small weights that draft for a model: a safetensors file beside it, found by name, read whole."""

import glob
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels import formats
from edgewise.kernels.api import Floats
from edgewise.kernels.parsing import parse_safetensors
from edgewise.weights import bundle
from edgewise.weights.api import Header

KINDS = ("F32", "F16", "BF16")
MEASURED = ("accuracy", "chances")  # of guesses on held-out text


def beside(header: Header, what: str) -> Path:
    """Where a model's `what` lies: model.gguf → model.WHAT.safetensors, a folder → WHAT.safetensors in it."""
    if header.dialect == "gguf":
        return header.files[0].with_name(f"{header.files[0].stem}.{what}.safetensors")
    return header.folder / f"{what}.safetensors"


def read_tensors(path: Path) -> tuple[Mapping[str, str], dict[str, Floats]]:
    """Metadata, and every tensor as float32. Raises BadInput when a tensor is not of floats, or the file is damaged."""
    fd, size = bundle.open_file(path, chosen=True)
    with bundle.closing(fd):
        plan = parse_safetensors(fd, size, str(path))
        tensors = {}
        for tensor in plan.tensors:
            if tensor.format not in KINDS:
                raise BadInput(f"{path}: the tensor '{tensor.name}' is {tensor.format}; known are {', '.join(KINDS)}.")
            raw = os.pread(fd, tensor.nbytes, tensor.offset)
            if len(raw) != tensor.nbytes:
                raise BadInput(f"{path}: the tensor '{tensor.name}' is cut short. Copy the file again.")
            count = int(np.prod(tensor.shape, dtype=np.int64))
            values = formats.dequantize(tensor.format, np.frombuffer(raw, np.uint8), count).reshape(tensor.shape)
            if not np.isfinite(values).all():
                raise BadInput(f"{path}: the tensor '{tensor.name}' has values that are not finite. Train it again.")
            tensors[tensor.name] = values
    return plan.metadata, tensors


def write_tensors(path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> None:
    """Matrices as BF16, whatever has one dimension or was measured as F32. Replaces the file when it is whole."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[bytes] = []
    at = 0
    for name, values in tensors.items():
        fmt = "F32" if values.ndim < 2 or name in MEASURED else "BF16"
        raw = formats.quantize(fmt, np.ascontiguousarray(values, np.float32).reshape(-1)).tobytes()
        header[name] = {"dtype": fmt, "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *parts]))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# How often a tensor's axes are there in a model whose residual stream is there several times over, and its factor.
_WIDER = (
    (".0.linear.weight", (1, 1), 0), (".0.linear.bias", (1,), 0), (".1.weight", (0, 1), 0), ("accuracy", (0, 0), 0),
    ("chances", (0, 0, 0), 0), ("root.state.weight", (0, 1), 0), ("root.state.bias", (0,), 0),
    ("root.token.weight", (0, 1), 1), ("root.out.weight", (1, 0), 0),
    ("token_down", (0, 1), 1), ("token_up", (1, 0), 0), ("embed", (0, 1), 0),
    ("early_down", (0, 1), 1), ("early_up", (1, 0), 0), ("down", (0, 0, 1), 1),
    ("up", (0, 1, 0), 0),
)  # fmt: skip


def widened(
    metadata: Mapping[str, str], tensors: Mapping[str, Floats], times: int
) -> tuple[dict[str, str], dict[str, Floats]]:
    """What drafts the same for a model with `times` copies of its stream, whose last norm shares them out (a state
    after it is `times` copies of 1 / times the state). Raises BadInput for a tensor it does not know."""
    found: dict[str, Floats] = {}
    for name, values in tensors.items():
        axes, share = next(((axes, share) for end, axes, share in _WIDER if name.endswith(end)), (None, 0))
        if axes is None:
            raise BadInput(f"How to widen the tensor '{name}' is not known.")
        found[name] = np.tile(values, [times if axis else 1 for axis in axes]) / np.float32(times if share else 1)
    return {**metadata, "scale": repr(float(metadata.get("scale", "1")) / times)}, found


def companions(model: Path) -> list[tuple[str, Path]]:
    """(what, file) of the drafting weights beside a GGUF file or in a folder."""
    if model.is_dir():
        return [(file.name.removesuffix(".safetensors"), file) for file in sorted(model.glob("*.safetensors"))
                if _drafts(file)]  # fmt: skip
    found = sorted(model.parent.glob(f"{glob.escape(model.stem)}.*.safetensors"))
    return [(file.name[len(model.stem) + 1 :].removesuffix(".safetensors"), file) for file in found]


def _drafts(file: Path) -> bool:
    fd, size = bundle.open_file(file, chosen=True)
    with bundle.closing(fd):
        return any(tensor.name == "accuracy" for tensor in parse_safetensors(fd, size, str(file)).tensors)
