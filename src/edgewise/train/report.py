"""Held-out bits per byte beside what general compressors and a 5-gram model need for the same text; the model card."""

import json
import lzma
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edgewise.train import chat, tasks
from edgewise.train.dataset import HELD_OUT_TASKS, Data, Text
from edgewise.train.export import kept_as_gguf
from edgewise.train.ngram import ngram_nats
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


def five_gram(text: Text, vocab: int, text_bytes: int) -> dict[str, float]:
    """Bits per byte of a 5-gram model over the same tokens, which has read the whole training part."""
    nats = ngram_nats(text.tokens, text.held_out, vocab)
    return {"5-gram, same tokens": bits_per_byte(nats, len(text.held_out), text_bytes)}


def five_gram_of_replies(text: Text, tokenizer: Tokenizer, vocab: int, text_bytes: int) -> dict[str, float]:
    """The same for the replies to the tasks' held-out questions; it sees the questions too."""
    said: list[bool] = []
    for one in _held_out_tasks():
        said += [False] * len(chat.prompt_ids(tokenizer, one)) + [True] * len(chat.reply_ids(tokenizer, one))
    nats = ngram_nats(text.tokens, text.held_out, vocab, asked=np.array(said))
    return {"5-gram, same tokens": bits_per_byte(nats, sum(said), text_bytes)}


def after_reading(train: bytes, text: bytes) -> float:
    """Bits per byte xz needs for `text` with `train` before it in one window: the fair opponent. Takes a minute."""
    window = 1 << max(20, (len(train) + len(text)).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    both = lzma.compress(train + text, lzma.FORMAT_XZ, filters=filters)
    alone = lzma.compress(train, lzma.FORMAT_XZ, filters=filters)
    return 8 * (len(both) - len(alone)) / len(text)


def table(figures: Mapping[str, float], unit: str = "bits per byte") -> str:
    """A Markdown table of figures, lowest first."""
    rows = [f"| {name} | {value:.3f} |" for name, value in sorted(figures.items(), key=lambda item: item[1])]
    return "\n".join([f"| | {unit} |", "|---|---|", *rows])


def held_out_text(folder: Path) -> bytes:
    """The held-out documents as `prepare` left them."""
    return (folder / "held_out.txt").read_bytes()


def licences(about: Mapping[str, Any]) -> str:
    """The packages that were read, one line each with version and licence."""
    rows = [row for row in about.get("packages", ()) if row["documents"]]
    return "\n".join(f"| {r['name']} | {r['version']} | {r['licence']} | {r['bytes']:,} |" for r in rows)


def differences(about: Mapping[str, Any], lock: Mapping[str, Any]) -> list[str]:
    """What of the gathered text is not what the list of an earlier run says, a sentence each."""
    found = []
    for key, what in (("sha256", "the standard library"), ("packages_sha256", "the packages")):
        if about.get(key) != lock.get(key):
            found.append(f"{what}: {str(about.get(key))[:12]}, not {str(lock.get(key))[:12]}")
    old = {row["name"]: row["version"] for row in lock.get("packages", ())}
    new = {row["name"]: row["version"] for row in about.get("packages", ())}
    found += [f"{name} is {new.get(name, 'missing')}, not {old.get(name, 'there')}"
              for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]  # fmt: skip
    return found


def model_card(recipe: Recipe, data: Data, out: Path, file_bytes: int) -> str:
    """README.md of the exported model: data, shape, training, figures and samples, limits, licence."""
    about = data.about
    result = json.loads((out / "result.json").read_text())
    shares = recipe.data.shares
    tokens = sum(len(data.texts[name].tokens) for name in shares)
    gguf = recipe.kind == "language" and kept_as_gguf(recipe.model)
    fields = about | result | asdict(recipe.model) | {
        "name": recipe.name,
        "layout": recipe.model.layout,
        "experts_text": f" {recipe.model.experts} experts, {recipe.model.experts_per_token} a token," * bool(
            recipe.model.experts
        ),
        "shares_text": ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        "file_bytes": file_bytes,
        "seen": result["tokens"] / tokens,
        "minutes": result["seconds"] / 60,
        "optimiser": recipe.train.optimiser,
        "bf16_text": ", with bfloat16 products (`--bf16`)" * bool(result.get("bf16")),
        "picture": "![the loss, step by step](loss.svg)",
        "kept_as": "GGUF Q8_0" if gguf else "safetensors in float16",
        "teacher_text": f" Taught by {recipe.train.teacher}." * bool(recipe.train.teacher),
        "task_tokens": len(data.texts["tasks"].tokens),
        "packages_text": packages_text(about) if "packages" in shares else "",
        "limits": LIMITS["tasks" if set(shares) == {"tasks"} else recipe.kind],
        "report": (out / "report.md").read_text().rstrip(),
    }  # fmt: skip
    return (Path(__file__).parent / "card.md").read_text().format_map(fields)


LIMITS = {
    "language": "A toy by size: it knows the standard library's manner, not yours. It invents names, repeats itself "
    "when greedy, and speaks no language but Python's. Other text it has never seen.",
    "tasks": "It knows seven kinds of generated question and nothing else, not even their paraphrase.",
    "classifier": "It tells the kinds of text it was shown apart and answers one of them whatever it reads.",
}


def packages_text(about: Mapping[str, Any]) -> str:
    return ("\nInstalled packages whose metadata states a permissive licence, at most 1 MB of each:\n\n"
            f"| package | version | licence | bytes |\n|---|---|---|---|\n{licences(about)}\n")  # fmt: skip


def replies(tokenizer: Tokenizer) -> bytes:
    """What ought to be said to every held-out question of the held-out array, marks included."""
    said = [tokenizer.decode(chat.reply_ids(tokenizer, one), skip_special_tokens=False) for one in _held_out_tasks()]
    return "".join(said).encode()


def _held_out_tasks() -> Iterator[tasks.Example]:
    """In the order of the held-out array."""
    for task in tasks.TASKS:
        for level in range(1, tasks.LEVELS + 1):
            yield from tasks.held_out(task, level, HELD_OUT_TASKS)
