"""A real model: stories260K tells its story from safetensors and from GGUF."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgewise.kernels.api import Device
from edgewise.models import load_model
from edgewise.testing.driver import Driver
from edgewise.weights import open_checkpoint

SHARED = Path(os.environ.get("EDGEWISE_SHARED", Path(__file__).parents[3] / "shared"))
FOLDER = SHARED / "models" / "stories260K"
OPENING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the sample model is not there: {FOLDER}")


@pytest.mark.parametrize("file", ["", "stories260K-F32.gguf", "stories260K-Q8_0.gguf"])
def test_greedy_from_bos_tells_the_story(file: str, device: Device) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = load_model(open_checkpoint(FOLDER / file), device)
    tokens, _ = Driver(model, device).greedy([1], 48)
    text = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json")).decode(tokens)
    assert text.startswith(OPENING)


def test_safetensors_and_gguf_are_equal_for_200_tokens(device: Device) -> None:
    models = [load_model(open_checkpoint(FOLDER / file), device) for file in ("", "stories260K-F32.gguf")]
    told = [Driver(model, device).greedy([1], 200) for model in models]
    assert told[0][0] == told[1][0]
    assert np.array_equal(np.array(told[0][1]), np.array(told[1][1]))
