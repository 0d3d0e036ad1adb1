"""From a trained folder to what is kept: GGUF in Q8_0 where the format can say what the model is, else the folder.

GGUF cannot say that a Llama's gate is a relu, and edgewise reads SmallThinker from folders only; those stay in float16.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewise.base import BadInput
from edgewise.convert.converting import convert
from edgewise.train.hf import load_hf
from edgewise.train.model import Transformer
from edgewise.train.recipe import ModelShape

COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def kept_as_gguf(shape: ModelShape) -> bool:
    return shape.layout in ("llama", "qwen3_moe") and shape.act == "silu"


def export(model: Path, out: Path, shape: ModelShape | None, name: str = "") -> int:
    """Writes `out`, a GGUF file or a folder as its name says; returns its size in bytes. shape: None for a folder.

    name: that a GGUF file says; without it the folder's.
    """
    if shape is not None and out.suffix == ".gguf":
        if not kept_as_gguf(shape):
            raise BadInput(f"GGUF cannot say what this model is ({shape.layout}, {shape.act}). Export to a folder.")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            named = Path(temporary) / (name or model.name)
            shutil.copytree(model, named)  # whose name is the model's
            convert(named, out, quant="q8_0", pure=True, force=True)
        return out.stat().st_size
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(model.iterdir()):
        shutil.copyfile(file, out / file.name)
    return sum(file.stat().st_size for file in out.iterdir())


@contextmanager
def folder_of(model: Path) -> Iterator[Path]:
    """A Hugging Face folder with float weights: `model` itself, or, while this lasts, what a GGUF file holds."""
    if model.is_dir():
        yield model
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        convert(model, folder, to="safetensors", quant="f32")
        yield folder


def load_model(model: Path) -> Transformer:
    """A member from its folder or GGUF file, in float32 on the CPU."""
    with folder_of(model) as folder:
        return load_hf(folder)
