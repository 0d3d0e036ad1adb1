"""A Hugging Face directory: config.json beside one or many safetensors files. Tokenizer files stay where they are.

Paper:  none (https://huggingface.co/docs/safetensors)
Exact.
Needs:  nothing
Cost:   the headers are read once; no tensor is
Status: kept
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.base import BadInput
from edgewise.base.catalog import nearest
from edgewise.kernels import formats
from edgewise.kernels.parsing import StoredTensor, parse_safetensors
from edgewise.weights import bundle
from edgewise.weights.api import Extent, Header, TensorInfo

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
OWN_METHOD = "edgewise"  # quantization_config.quant_method of a folder in our own formats (docs/formats.md)
_INDEX_BYTES = 12 << 20  # 100,000 tensors
_TENSORS = 131072


class SafetensorsCheckpoint:
    """Opening validates everything: each header against its file, and the index against the headers.

    need_tensors=False opens a folder that has only configuration and tokenizer files.
    """

    def __init__(self, folder: Path, *, need_tensors: bool = True) -> None:
        self._tensors: dict[str, tuple[int, StoredTensor]] = {}
        config: Mapping[str, Any] = {}
        if need_tensors or bundle.exists(folder / "config.json"):
            config = bundle.read_json(folder / "config.json")
        generation: Mapping[str, Any] = {}
        if bundle.exists(folder / "generation_config.json"):
            generation = bundle.read_json(folder / "generation_config.json")
        architecture = config.get("model_type", "")
        if not isinstance(architecture, str) or (need_tensors and not architecture):
            where = folder / "config.json"
            raise BadInput(f"{where}: model_type is missing or not a string, so nothing says what model this is.")
        files = self._read(folder) if need_tensors or _weight_files(folder) else []
        self._unpack(config.get("quantization_config"), folder / "config.json")
        self._header = Header(
            dialect="hf",
            architecture=architecture,
            config=config,
            files=tuple(files),
            folder=folder,
            generation=generation,
            name=_name(folder),
        )

    def _read(self, folder: Path) -> list[Path]:
        """Fills the tensor table; returns the files."""
        weight_map: Mapping[str, Any] | None = None
        found = _weight_files(folder)
        if SINGLE in found:
            names = [SINGLE]
        elif bundle.exists(folder / INDEX):
            weight_map = bundle.read_json(folder / INDEX, _INDEX_BYTES).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
                raise BadInput(f"{folder / INDEX}: weight_map must be an object of tensor name → file name.")
            names = sorted(set(weight_map.values()))
        elif len(found) == 1:
            names = found
        else:
            raise BadInput(f"{folder}: {_no_weights(folder, found)}")
        files = [bundle.member(folder, name) for name in names]
        for name in names:
            if not name.endswith(".safetensors"):
                raise BadInput(f"{folder / INDEX}: {name!r} is not a safetensors file.")
        for index, path in enumerate(files):
            self._add(index, path)
        for name, file in (weight_map or {}).items():
            held = self._tensors.get(name)
            if held is None or names[held[0]] != file:
                where = f"it is in {names[held[0]]}" if held else "no file has it"
                raise BadInput(f"{folder / INDEX}: tensor {name!r} should be in {file} but {where}.")
        return files

    def _add(self, index: int, path: Path) -> None:
        fd, size = bundle.open_file(path)
        try:
            plan = parse_safetensors(fd, size, str(path))
        finally:
            os.close(fd)
        for tensor in plan.tensors:
            if tensor.name in self._tensors:
                raise BadInput(f"{path}: tensor {tensor.name!r} is also in another file of this model.")
            self._tensors[tensor.name] = (index, tensor)
        if len(self._tensors) > _TENSORS:
            raise BadInput(f"{path}: the model has more than {_TENSORS} tensors.")

    def _unpack(self, packing: Any, where: Path) -> None:
        """Our own formats are stored as rows of bytes; config.json says which tensor has which."""
        if not isinstance(packing, Mapping) or packing.get("quant_method") != OWN_METHOD:
            return
        packed = packing.get("formats")
        if not isinstance(packed, Mapping):
            raise BadInput(f"{where}: quantization_config.formats must be an object of tensor name → format.")
        for name, fmt in packed.items():
            found = self._tensors.get(name)
            if found is None or not isinstance(fmt, str) or fmt.partition(":")[0] not in formats.OWN:
                raise BadInput(
                    f"{where}: quantization_config gives {name[:80]!r} the format {str(fmt)[:40]!r}; "
                    f"{'there is no such tensor' if found is None else 'it must be one of ' + ', '.join(formats.OWN)}."
                )
            file, tensor = found
            spec = formats.find(fmt)
            blocks, left = divmod(tensor.shape[-1] if tensor.shape else 0, spec.layout.itemsize)
            if tensor.format != "U8" or len(tensor.shape) < 2 or left:
                raise BadInput(
                    f"{where}: {name[:80]!r} is said to be {spec.name}, which is stored as rows of U8 in blocks of "
                    f"{spec.layout.itemsize} bytes, but it is {tensor.format} of shape {tensor.shape}."
                )
            shape = (*tensor.shape[:-1], blocks * spec.block)
            self._tensors[name] = file, tensor._replace(shape=shape, format=spec.name)

    def header(self) -> Header:
        return self._header

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Where a tensor lies. Raises BadInput naming the nearest one."""
        found = self._tensors.get(name)
        if found is None:
            hint = nearest(name, list(self._tensors)) if self._tensors else " No tensors were opened."
            raise BadInput(f"{self._header.folder}: there is no tensor {name!r}.{hint}")
        file, tensor = found
        return TensorInfo(name, tensor.shape, tensor.format, Extent(file, tensor.offset, tensor.nbytes))


def _weight_files(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be listed: {error.strerror}.") from None


def _no_weights(folder: Path, found: Sequence[str]) -> str:
    if found:
        return f"there is neither {SINGLE} nor {INDEX}, and {len(found)} safetensors files could be meant."
    pickles = sorted(name for name in os.listdir(folder) if Path(name).suffix in bundle.PICKLES)
    if pickles:
        return (
            f"the weights are only there as {pickles[0]}; pickle files are never opened. "
            "Convert them to safetensors, or pull the repository's safetensors version."
        )
    return f"there is no {SINGLE} and no {INDEX}. Is the download complete?"


def _name(folder: Path) -> str:
    """org/name for a snapshot in the Hugging Face cache, otherwise the folder's own name."""
    real = Path(os.path.realpath(folder))
    for parent in real.parents:
        if parent.name.startswith("models--"):
            return parent.name.removeprefix("models--").replace("--", "/")
    return real.name
