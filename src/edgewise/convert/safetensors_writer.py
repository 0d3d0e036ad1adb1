"""Writes safetensors: a JSON header with every tensor's place, then the bytes. One file, or shards with an index.

Format: https://huggingface.co/docs/safetensors. Tensors stream; only headers are held in memory.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from edgewise.base import BadInput, Unsupported
from edgewise.convert.gguf_writer import NewTensor, Progress
from edgewise.kernels import formats
from edgewise.weights.checkpoints.safetensors import OWN_METHOD

# Named alike there and here, as FP8 is; our own formats are rows of bytes (docs/formats.md).
DTYPES = ("F32", "F16", "BF16")
SHARD_BYTES = 5 * 10**9


def write_safetensors(
    folder: Path, tensors: Sequence[NewTensor], progress: Progress | None = None, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Fills `folder` with model.safetensors, or with shards of at most about `shard_bytes` and their index."""
    for tensor in tensors:
        if tensor.format not in (*DTYPES, *formats.FLOAT8) and not is_own(tensor.format):
            raise Unsupported(f"safetensors cannot hold {tensor.format}. Known: {', '.join(DTYPES)}.")
    shards = _shards(tensors, shard_bytes)
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors)},
            "weight_map": {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    for name, shard in zip(names, shards, strict=True):
        _write(folder / name, shard, progress)
    return [folder / name for name in names]


def is_own(fmt: str) -> bool:
    return fmt.partition(":")[0] in formats.OWN


def packing(tensors: Sequence[NewTensor]) -> dict[str, object] | None:
    """What config.json must say as quantization_config; None where every tensor is a float."""
    own = {tensor.name: tensor.format for tensor in tensors if is_own(tensor.format)}
    return {"quant_method": OWN_METHOD, "formats": own} if own else None


def _stored(tensor: NewTensor) -> tuple[str, tuple[int, ...]]:
    """dtype and shape in the header."""
    if not is_own(tensor.format):
        return tensor.format, tensor.shape
    return "U8", (*tensor.shape[:-1], formats.nbytes(tensor.format, tensor.shape[-1]))


def _shards(tensors: Sequence[NewTensor], most: int) -> list[list[NewTensor]]:
    shards: list[list[NewTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write(path: Path, tensors: Sequence[NewTensor], progress: Progress | None) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        if tensor.name in entries:
            raise BadInput(f"Two tensors are called '{tensor.name}'.")
        dtype, shape = _stored(tensor)
        entries[tensor.name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            tensor.write(file, progress)
