"""`open_checkpoint`: from what a user typed to an open checkpoint, or one sentence that says what is wrong."""

import os
import re
from pathlib import Path

from edgewise.base import BadInput, Unsupported
from edgewise.weights import bundle
from edgewise.weights.api import Checkpoint
from edgewise.weights.checkpoints.gguf import GgufCheckpoint, split_parts
from edgewise.weights.checkpoints.safetensors import SafetensorsCheckpoint
from edgewise.weights.checkpoints.streamed import BUNDLES, LIST, StreamedCheckpoint

_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(:(?P<file>[\w./-]+\.gguf))?")


def open_checkpoint(path: str | Path, *, need_tensors: bool = True) -> Checkpoint:
    """Opens a Hugging Face directory, a GGUF file, or a repository "org/name[:file.gguf]" that is in the local cache.

    Nothing is downloaded. need_tensors=False also accepts a folder with only a tokenizer (a vocabulary-only GGUF file
    always opens). Raises BadInput or Unsupported with one sentence: what, where, what to do.
    """
    if not str(path) or "\0" in str(path):
        raise BadInput("No model is named. Give a folder, a .gguf file, or org/name from the Hugging Face cache.")
    try:
        place = Path(path).expanduser()
    except RuntimeError:  # ~name of nobody
        raise BadInput(f"{path}: there is no such home folder.") from None
    if not os.path.lexists(place):
        place = _from_cache(str(path))
    if place.is_dir():
        return _open_folder(place, need_tensors)
    return _open_file(place)


def _open_folder(folder: Path, need_tensors: bool) -> Checkpoint:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be listed: {error.strerror}.") from None
    inner = _open_inner(folder, names, need_tensors)
    return StreamedCheckpoint(inner, folder) if LIST in names else inner


def _open_inner(folder: Path, names: list[str], need_tensors: bool) -> Checkpoint:
    tensors = [name for name in names if name.endswith(".safetensors") and name != BUNDLES]
    gguf = any(name.endswith(".gguf") for name in names) and not tensors
    if "config.json" in names and not gguf:  # repositories of GGUF files often carry the original's config.json
        return SafetensorsCheckpoint(folder, need_tensors=need_tensors)
    ggufs = sorted({str(split_parts(folder / name)[0]) for name in names if name.endswith(".gguf")})
    if len(ggufs) == 1:
        return GgufCheckpoint(Path(ggufs[0]), chosen=False)
    if ggufs:
        raise BadInput(f"{folder}: {len(ggufs)} GGUF models are here. Name one: {', '.join(map(str, ggufs[:8]))}.")
    if not need_tensors and any(name.startswith("tokenizer") for name in names):
        return SafetensorsCheckpoint(folder, need_tensors=False)
    raise BadInput(f"{folder}: there is no config.json and no .gguf file, so this is not a model's folder.")


def _open_file(path: Path) -> Checkpoint:
    if path.suffix in bundle.PICKLES:
        raise BadInput(f"{path}: pickle files are never opened. Convert it to safetensors.")
    fd, size = bundle.open_file(path, chosen=True)
    try:
        magic = os.pread(fd, 4, 0)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}.") from None
    finally:
        os.close(fd)
    if magic == b"GGUF" or path.suffix == ".gguf":
        return GgufCheckpoint(path)
    if magic == b"FUGG":
        raise Unsupported(f"{path}: a big-endian GGUF file; only little-endian ones are read. Convert it again.")
    if path.suffix == ".safetensors" or path.name.endswith(".index.json") or path.name == "config.json":
        raise BadInput(f"{path}: this is one file of a model; give its folder, {path.parent or '.'}.")
    raise BadInput(
        f"{path}: not a model file ({size} bytes that do not start with 'GGUF'). "
        "Give a .gguf file or a folder with config.json."
    )


def _from_cache(text: str) -> Path:
    """The folder or file of a repository in the Hugging Face cache. Looks, never downloads."""
    match = _REPO.fullmatch(text)
    if match is None:
        raise BadInput(f"{text}: no such file or folder.{_nearby(text)}")
    from huggingface_hub import snapshot_download  # here: it takes a while to import
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(match["repo"], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        hint = _nearby(text)
        raise BadInput(
            f"{text}: no such folder, and no such repository in the Hugging Face cache.{hint} "
            f"`edgewise pull {text}` downloads it."
        ) from None
    if match["file"] is None:
        return folder
    path = folder / os.path.normpath(match["file"])
    if ".." in Path(match["file"]).parts or not os.path.lexists(path):
        have = [str(found.relative_to(folder)) for found in sorted(folder.rglob("*.gguf"))[:8]]
        raise BadInput(f"{text}: the cached repository has no such file. It has: {', '.join(have) or 'no GGUF file'}.")
    return path


def _nearby(text: str) -> str:
    """` Did you mean ...?` from the folder that the path points into, or nothing."""
    path = Path(text)
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    import difflib

    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(str(path.parent / name) for name in close)}?" if close else ""
