"""Everything a user's first command does with a model's files, one stage after the other, for mutated files.

Each stage may refuse with one of the house's errors; any other exception is a failure of the house.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import EdgewiseError
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint
from edgewise.weights.sources import SOURCES

STAGES = ("open", "read", "text", "template", "model")
TEXTS = ("Hello, world", "  a\u0000b \u00e9\U0001f600\n<s></s><|x|>", "")
_MESSAGES = [{"role": "user", "content": "hi <s>"}, {"role": "assistant", "content": "yes"}]
_CHUNK = 1 << 20
_devices: list[Any] = []
_ROOMS = {
    "text": ("edgewise.text.hf", "edgewise.text.gguf_llama", "edgewise.text.gguf_gpt2"),
    "template": ("edgewise.text.chat",),
    "model": ("edgewise.models.loading", "edgewise.kernels.devices.cpu"),
}


def _read(checkpoint: Checkpoint) -> None:
    """Every metadata value and every tensor byte."""
    for value in checkpoint.header().config.values():
        if not isinstance(value, (str, int, float)) and value is not None:
            for _ in value:
                pass
    source = SOURCES.build("file", files=checkpoint.header().files)
    try:
        for name in checkpoint.names():
            extent = checkpoint.info(name).extent
            for at in range(0, extent.nbytes, _CHUNK):
                source.read(extent, at, min(_CHUNK, extent.nbytes - at))
    finally:
        source.close()


def _text(checkpoint: Checkpoint) -> None:
    from edgewise.text import load_tokenizer

    tokenizer = load_tokenizer(checkpoint.header())
    for text in TEXTS:
        ids = tokenizer.encode(text)
        tokenizer.encode(text, add_special=True, parse_special=True)
        tokenizer.decode(ids)
        stream = tokenizer.stream()
        for token in [*ids, *range(min(tokenizer.vocab, 300))]:
            stream.push(token)
        stream.flush()


def _template(checkpoint: Checkpoint) -> None:
    from edgewise.text import load_template

    template = load_template(checkpoint.header())
    if template is not None:
        template.render(_MESSAGES, add_generation_prompt=True)


def _model(checkpoint: Checkpoint) -> None:
    from edgewise.kernels.devices import DEVICES
    from edgewise.models.loading import load_model

    if not _devices:  # one per forked process: threads do not survive a fork
        try:
            _devices.append(DEVICES.build("cpu"))
        except (EdgewiseError, ImportError):
            _devices.append(DEVICES.build("reference"))
    load_model(checkpoint, _devices[0])


def stages(wanted: str) -> list[str]:
    """The names of the stages to run. Imports their rooms, so that a forked process need not."""
    names = STAGES if wanted == "all" else tuple(wanted.split(","))
    for name in names:
        for room in _ROOMS.get(name, ()):
            importlib.import_module(room)
    return list(names)


def use(path: Path, names: list[str]) -> str:
    """Runs the stages. Returns the first one that refused, or "loaded". Never prints."""
    work: dict[str, Callable[[Checkpoint], None]] = {
        "read": _read, "text": _text, "template": _template, "model": _model,
    }  # fmt: skip
    refused = ""
    try:
        checkpoint = open_checkpoint(path)
    except EdgewiseError as error:
        str(error).encode()  # a sentence that cannot be printed is a traceback in disguise
        return "open"
    with np.errstate(all="ignore"):
        for name in names:
            if name in work:
                try:
                    work[name](checkpoint)
                except EdgewiseError as error:
                    str(error).encode()
                    refused = refused or name
    return refused or "loaded"
