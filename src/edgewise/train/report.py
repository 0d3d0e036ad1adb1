"""Held-out bits per byte beside what general compressors need for the same text."""

import json
import lzma
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgewise.train.recipe import Recipe


def bits_per_byte(nats_per_token: float, tokens: int, text_bytes: int) -> float:
    """The model's cost of the held-out text, end marks included, spread over the text's bytes."""
    return nats_per_token * tokens / math.log(2) / text_bytes


def compressors(text: bytes) -> dict[str, float]:
    """Bits per byte of gzip and xz at their strongest. They start from nothing; the model has read the library."""
    return {
        "gzip -9": 8 * len(zlib.compress(text, 9, wbits=31)) / len(text),
        "xz -9e": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text),
    }


def after_reading(train: bytes, text: bytes) -> float:
    """Bits per byte xz needs for `text` with `train` before it in one window: the fair opponent. Takes a minute."""
    window = 1 << max(20, (len(train) + len(text)).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    both = lzma.compress(train + text, lzma.FORMAT_XZ, filters=filters)
    alone = lzma.compress(train, lzma.FORMAT_XZ, filters=filters)
    return 8 * (len(both) - len(alone)) / len(text)


def table(figures: Mapping[str, float]) -> str:
    """A Markdown table of bits per byte, best first."""
    rows = [f"| {name} | {value:.3f} |" for name, value in sorted(figures.items(), key=lambda item: item[1])]
    return "\n".join(["| | bits per byte |", "|---|---|", *rows])


def held_out_text(folder: Path) -> bytes:
    """The held-out documents as `prepare` left them."""
    return (folder / "held_out.txt").read_bytes()


def model_card(recipe: Recipe, data_folder: Path, out: Path, file_bytes: int) -> str:
    """README.md of the exported model: data, shape, training, figures and samples, limits, licence."""
    about = json.loads((data_folder / "corpus.json").read_text())
    result = json.loads((out / "result.json").read_text())
    fields = about | result | asdict(recipe.model) | {
        "name": recipe.name,
        "file_bytes": file_bytes,
        "epochs": result["tokens"] / about["train_tokens"],
        "minutes": result["seconds"] / 60,
        "optimiser": recipe.train.optimiser,
        "report": (out / "report.md").read_text().rstrip(),
    }  # fmt: skip
    return (Path(__file__).parent / "card.md").read_text().format_map(fields)
