"""`convert --layout neurons`: the feed-forward rows of a dense model, a neuron's three together.

A neuron is a row of gate, a row of up and a column of down. The folder holds an ordinary model without those matrices,
`streamed.safetensors` with two U8 tensors a layer (the neurons, each on whole pages, and their checksums) and
`streamed.json`, which says what is in them.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput, Unsupported
from edgewise.convert.outputs import check_output, new_folder
from edgewise.convert.rows import Rows, StoredRows
from edgewise.convert.streaming import _write_resident
from edgewise.convert.writing import Watch, Written, census, counting
from edgewise.kernels import formats
from edgewise.kernels.neurons import FORMATS
from edgewise.models.loading import examine
from edgewise.models.streaming import PIECE_BYTES
from edgewise.weights import bundle, open_checkpoint
from edgewise.weights.checkpoints.streamed import BUNDLES, LIST, PAGE, VERSION, StreamedCheckpoint, neurons_name
from edgewise.weights.neurons import sums_of
from edgewise.weights.sources import SOURCES

PARTS = ("gate", "up", "down")
STRIP_BYTES = 64 << 20  # of neurons made at a time


def convert_neurons(model: Path, out: Path, *, force: bool = False, watch: Watch | None = None) -> Written:
    """Writes `model` to the folder `out`, whole or not at all. Formats stay. Raises BadInput, OutOfRoom,
    Unsupported."""
    checkpoint = open_checkpoint(model)
    if isinstance(checkpoint, StreamedCheckpoint):
        raise BadInput(f"{model} is laid out for streaming already.")
    header = checkpoint.header()
    _, spec, names = examine(checkpoint)
    found = [{part: names.find(f"layers.{layer}.{part}") for part in PARTS} for layer in range(spec.layers)]
    if spec.experts or any(name is None for parts in found for name in parts.values()):
        raise Unsupported("Only dense models whose gate, up and down are separate matrices can be laid out.")
    stored = {name for parts in found for name in parts.values() if name}
    fmt = {checkpoint.info(name).format for name in stored}
    if len(fmt) > 1 or not fmt <= set(FORMATS) or spec.dim % 2:
        raise Unsupported(
            f"A neuron's column is part of no block only in {' and '.join(FORMATS)}; the feed-forward part has "
            f"{', '.join(sorted(fmt))}. Convert the model first, with -q bf16."
        )
    if any(names.find(f"layers.{layer}.{part}.bias") for layer in range(spec.layers) for part in PARTS):
        raise Unsupported("A feed-forward part with biases cannot be laid out by neurons.")
    form = fmt.pop()
    row = formats.nbytes(form, spec.dim)
    step = -(-3 * row // PAGE) * PAGE
    source = SOURCES.build("file", files=header.files)
    try:
        tensors: dict[str, Rows] = {
            name: StoredRows(checkpoint.info(name), source) for name in checkpoint.names() if name not in stored
        }
        bundles = spec.layers * spec.ffn_dim * (step + 16)
        total = bundles + sum(checkpoint.info(name).extent.nbytes for name in tensors)
        folder = (header.folder,) if header.dialect == "hf" else ()
        check_output(out, total, force=force, folder=True, inputs=(*header.files, *folder))
        progress = counting(watch, total)
        with new_folder(out) as made:
            _write_resident(checkpoint, made, tensors, progress)
            listed = []
            with open(made / BUNDLES, "wb", buffering=0) as file:
                offsets = _table(file, spec.layers, spec.ffn_dim, step)
                for layer, parts in enumerate(found):
                    rows = [StoredRows(checkpoint.info(str(parts[part])), source) for part in PARTS]
                    sums = _write_layer(file, offsets[layer][0], rows, spec.ffn_dim, row, step, progress)
                    file.seek(offsets[layer][1])
                    file.write(sums.astype("<u8").tobytes())
                    progress(sums.nbytes)
                    listed.append(
                        {"layer": layer, "count": spec.ffn_dim, "dim": spec.dim, "format": form, "step": step}
                    )
            shapes = {name: [list(checkpoint.info(name).shape), form] for name in sorted(stored)}
            (made / LIST).write_text(json.dumps({
                "version": VERSION, "piece_bytes": PIECE_BYTES, "tensors": shapes, "bundles": [], "neurons": listed
            }))  # fmt: skip
            _copy_predictor(header.folder if header.dialect == "hf" else header.files[0].parent, made)
    finally:
        source.close()
    values = census(checkpoint.info(name) for name in checkpoint.names())
    note = f"{spec.layers * spec.ffn_dim} neurons that can come and go, {step} bytes each."
    return Written(out, total, values, [note])


def _copy_predictor(folder: Path, made: Path) -> None:
    from edgewise.models.neurons.predictor import FILE

    if (folder / FILE).is_file():
        (made / FILE).write_bytes(bundle.read_bytes(folder / FILE, 1 << 30))


def _table(file: Any, layers: int, count: int, step: int) -> list[tuple[int, int]]:
    """Writes the container's header; where each layer's neurons and sums begin in the file."""
    entries: dict[str, Any] = {}
    offset = 0
    for layer in range(layers):
        for name, nbytes, shape in ((neurons_name(layer), count * step, [count, step]),
                                    (f"{neurons_name(layer)}.sums", -(-16 * count // PAGE) * PAGE, None)):  # fmt: skip
            size = nbytes if shape else 16 * count
            entries[name] = {"dtype": "U8", "shape": shape or [size], "data_offsets": [offset, offset + size]}
            offset += size
            if not shape and nbytes > size:  # the next neurons begin on a page
                gap = nbytes - size
                entries[f"{name}.pad"] = {"dtype": "U8", "shape": [gap], "data_offsets": [offset, offset + gap]}
                offset += gap
    table = json.dumps(entries, separators=(",", ":")).encode()
    table += b" " * (-(8 + len(table)) % PAGE)
    file.write(struct.pack("<Q", len(table)) + table)
    base = 8 + len(table)
    file.truncate(base + offset)
    begin = {name: base + entry["data_offsets"][0] for name, entry in entries.items()}
    return [(begin[neurons_name(layer)], begin[f"{neurons_name(layer)}.sums"]) for layer in range(layers)]


def _write_layer(
    file: Any, offset: int, parts: list[StoredRows], count: int, row: int, step: int, progress: Any
) -> npt.NDArray[np.uint64]:
    """A layer's neurons from its three matrices; their sums."""
    gate, up, down = parts
    item = row // gate.shape[-1]
    columns = down.raw(0, down.shape[0]).view(np.uint16 if item == 2 else np.uint32).reshape(down.shape)
    most = max(1, STRIP_BYTES // step)
    sums = []
    file.seek(offset)
    for first in range(0, count, most):
        some = min(most, count - first)
        made = np.zeros((some, step), np.uint8)
        made[:, :row] = gate.raw(first, some).reshape(some, row)
        made[:, row : 2 * row] = up.raw(first, some).reshape(some, row)
        turned = np.ascontiguousarray(columns[:, first : first + some].T)
        made[:, 2 * row : 3 * row] = turned.view(np.uint8).reshape(some, row)
        sums.append(sums_of(made, row))
        file.write(made.reshape(-1).data)
        progress(made.nbytes)
    return np.concatenate(sums)
