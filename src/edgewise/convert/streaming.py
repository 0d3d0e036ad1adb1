"""`convert --layout streamed`: experts, or layers, as they will lie in memory, each bundle on whole pages, with sums.

The folder holds an ordinary model without those weights (a GGUF file or a Hugging Face directory, as the source was),
`streamed.safetensors` with one U8 tensor for each bundle, and `streamed.json`, which says what is in them.
"""

import errno
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgewise.base import BadInput, EdgewiseError, OutOfRoom
from edgewise.convert.gguf_writer import write_gguf
from edgewise.convert.journal import Journal
from edgewise.convert.outputs import check_output, new_folder
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantising import Narrowing
from edgewise.convert.rows import Rows, StoredRows
from edgewise.convert.safetensors_writer import packing, write_safetensors
from edgewise.convert.writing import Watch, Written, census, counting
from edgewise.kernels.checksums import xxh64
from edgewise.kernels.devices import DEVICES
from edgewise.models.loading import CheckpointLoader, examine
from edgewise.models.streaming import PIECE_BYTES, Stream
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint
from edgewise.weights.checkpoints.streamed import BUNDLES, LIST, PAGE, VERSION, StreamedCheckpoint, bundle_name
from edgewise.weights.sources import SOURCES

AHEAD = 4  # bundles that are read while one is written


def convert_streamed(model: Path, out: Path, *, force: bool = False, watch: Watch | None = None) -> Written:
    """Writes `model` to the folder `out`, whole or not at all. Formats stay. Raises BadInput, OutOfRoom.

    Interrupted, it keeps what it has written beside the output; the same call goes on from there.
    """
    from edgewise.convert.converting import identity  # here: that module lists the commands' conversions

    checkpoint = open_checkpoint(model)
    if isinstance(checkpoint, StreamedCheckpoint):
        raise BadInput(f"{model} is laid out for streaming already.")
    header = checkpoint.header()
    source = SOURCES.build("file", files=header.files)
    device = DEVICES.build("cpu", threads=1)
    member, spec, names = examine(checkpoint)
    stream = Stream(spec, device, header.files, budget_bytes=1 << 62, rows=1)
    try:
        member(spec, CheckpointLoader(checkpoint, source, device, names, stream=stream))  # only to learn what it adopts
        device.filling()  # nothing else is read
        stream.check(0)
        stream.open(slots=AHEAD)
        folder = (header.folder,) if header.dialect == "hf" else ()
        bundles = sum(stored.bundle.nbytes for stored in stream.running.stored)
        resident = {name: StoredRows(checkpoint.info(name), source) for name in checkpoint.names()}
        tensors: dict[str, Rows] = {name: rows for name, rows in resident.items() if name not in stream.adopted}
        total = bundles + sum(checkpoint.info(name).extent.nbytes for name in tensors)
        check_output(out, total, force=force, folder=True, inputs=(*header.files, *folder))
        progress = counting(watch, total)
        table, sizes = _table(stream)
        journal = Journal(out, f"{VERSION} {PIECE_BYTES} {identity(header.files)}", BUNDLES, table)
        with _kept(journal):
            _write_bundles(journal, sizes, stream, progress)
            with new_folder(out) as made:
                _write_resident(checkpoint, made, tensors, progress)
                shapes = {name: [list(info.shape), info.format] for name, info in stream.adopted.items()}
                (made / LIST).write_text(json.dumps(
                    {"version": VERSION, "piece_bytes": PIECE_BYTES, "tensors": shapes, "bundles": journal.records}
                ))  # fmt: skip
                journal.move(made / BUNDLES)
    finally:
        stream.close()
        source.close()
    values = census(checkpoint.info(name) for name in checkpoint.names())
    return Written(out, total, values, [f"{len(sizes)} bundles that can come and go."])


def _write_resident(checkpoint: Checkpoint, folder: Path, tensors: Mapping[str, Rows], progress: Any) -> None:
    """Everything but the bundles, in the dialect of the source."""
    from edgewise.convert.converting import copy_companions  # here: that module lists the commands' conversions

    header = checkpoint.header()
    new = Narrowing(QUANTISERS.build("rtn")).tensors(tensors, {name: rows.format for name, rows in tensors.items()})
    if header.dialect == "gguf":
        metadata = {key: value for key, value in header.config.items() if not key.startswith("split.")}
        with open(folder / "model.gguf", "wb", buffering=1 << 20) as file:
            write_gguf(file, metadata, new, progress)
        return
    settings = {key: value for key, value in header.config.items() if key != "quantization_config"}
    packed = packing(new)
    settings |= {} if packed is None else {"quantization_config": packed}
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    copy_companions(header, folder)
    write_safetensors(folder, new, progress)


def _table(stream: Stream) -> tuple[bytes, list[int]]:
    """What the container begins with, so that its data lies on whole pages; the bytes of each bundle."""
    entries, offset, sizes = {}, 0, []
    for stored in stream.running.stored:
        end = offset + stored.bundle.nbytes
        entries[bundle_name(stored.key)] = {
            "dtype": "U8", "shape": [stored.bundle.nbytes], "data_offsets": [offset, end]
        }
        sizes.append(stored.bundle.nbytes)
        offset = end
    table = json.dumps(entries, separators=(",", ":")).encode()
    table += b" " * (-(8 + len(table)) % PAGE)  # the format allows spaces; the data begins on a page
    return struct.pack("<Q", len(table)) + table, sizes


def _write_bundles(journal: Journal, sizes: Sequence[int], stream: Stream, progress: Any) -> None:
    """The bundles that are not written yet, and what `streamed.json` says of each."""
    store = stream.running
    done = journal.open(sizes)
    progress(sum(sizes[:done]))
    for number in range(done, len(sizes)):
        stored = store.stored[number]
        with store.pin([number], wait=False):
            store.hint(range(number + 1, min(number + AHEAD, len(sizes))))
            store.wait([number])
            data = store.view(number)[: sizes[number]]
            sums = [f"{xxh64(data[at : at + PIECE_BYTES]):016x}" for at in range(0, len(data), PIECE_BYTES)]
            layer, part, expert = stored.key
            parts = stream.parts[stored.key]
            journal.add(data, {"layer": layer, "part": part, "expert": expert, "parts": parts, "checksums": sums})
        progress(sizes[number])
    journal.sync()


@contextmanager
def _kept(journal: Journal) -> Iterator[None]:
    """What is written outlives an interruption and a full disk, but no refusal."""
    try:
        yield
    except EdgewiseError:
        journal.remove()
        raise
    except OSError as error:
        journal.close()
        if error.errno != errno.ENOSPC:
            raise
        raise OutOfRoom(
            f"The disk of {journal.folder.parent} is full. Free some space; the same command goes on from there."
        ) from None
    finally:
        journal.close()
