"""A model small enough for tests, in a shape that the benchmark knows."""

import json
from pathlib import Path

from edgewise.convert.fabricating import fabricate
from edgewise.convert.shapes import find_shape


def tiny(shape: str, folder: Path) -> Path:
    """The shape with a small vocabulary and narrow layers."""
    config = dict(find_shape(shape).config) | {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
        "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    out = folder / "tiny.gguf"
    fabricate(out, config=folder / "config.json", quant="q8_0")
    return out
