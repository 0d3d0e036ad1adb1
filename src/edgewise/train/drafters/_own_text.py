"""What a model writes itself, and what it holds while it does: the text that heads and streams are trained on.

Drafts are compared with the model's own output, so that is what should be learnt, not the text that the model was
trained on (the authors call it self-distillation). Beginnings come from a text; the engine goes on from there, some of
it greedily, some drawn. Its hidden states are the engine's own, with quantised weights and all.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgewise.assemble import Assembly, assemble
from edgewise.base import BadInput, Request, SamplingParams
from edgewise.decode.guessing import embedded
from edgewise.embedded import embedded_model
from edgewise.text.api import Tokenizer
from edgewise.train.corpus import stdlib_folder
from edgewise.train.loop import progress

PROMPT, LENGTH, BATCH = 48, 256, 64  # tokens of a beginning and of the whole; texts written at once
GREEDY, WARM = 0.7, 0.7  # share of the texts written greedily, temperature of the others
HELD_OUT = 0.06
SUFFIXES = (".py", ".md", ".rst", ".txt")


@dataclass(frozen=True)
class OwnText:
    """tokens (texts, length): beginnings of `prompt` tokens, then what the model wrote."""

    tokens: npt.NDArray[np.int32]
    prompt: int

    @property
    def split(self) -> int:
        """Texts before this one are for training, the others are held out."""
        return len(self.tokens) - max(1, int(len(self.tokens) * HELD_OUT))


def add_text_options(it: argparse.ArgumentParser) -> None:
    it.add_argument("model", nargs="?", help="folder or GGUF file; none: the embedded model")
    it.add_argument("--text", type=Path, help="file or folder where texts begin (default: the standard library)")
    it.add_argument("--data", type=Path, help="prepared arrays of the family instead of --text")
    it.add_argument("--tokens", type=int, default=400_000, help="that the model writes to learn from (default: 400000)")
    it.add_argument("--threads", type=int, help="default: one a core")
    it.add_argument("--smoke", action="store_true", help="the whole way in seconds")


def add_training_options(it: argparse.ArgumentParser, name: str, steps: int, lr: float) -> None:
    it.add_argument("--steps", type=int, default=steps)
    it.add_argument("--minutes", type=float, help="limit of the training's wall time")
    it.add_argument("--lr", type=float, default=lr)
    it.add_argument("--to", type=Path, help="the file to write (default: beside the model)")
    it.add_argument("--out", type=Path, default=Path("build-train") / name, help="log.csv, loss.svg, state.pt")
    it.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda when there is one")
    it.add_argument("--bf16", action="store_true", help="bfloat16 products on a CPU too")
    it.add_argument("--resume", action="store_true", help="go on from OUT/state.pt")


def device_of(args: argparse.Namespace, smoke_steps: int) -> str:
    """Where to train, with what --smoke and --threads ask for seen to."""
    if args.smoke:
        args.tokens, args.steps = 2000, min(args.steps, smoke_steps)
    device: str = args.device or ("cuda" if torch.cuda.is_available() and not args.smoke else "cpu")
    if args.threads and device == "cpu":
        torch.set_num_threads(args.threads)
    return device


def opened(args: argparse.Namespace, sequences: int) -> Assembly:
    """The model that the arguments name, ready to run."""
    return assemble(args.model or embedded_model(), threads=args.threads, max_num_seqs=sequences, kv_cache_dtype="f16")


def words_of(parts: Assembly) -> Tokenizer:
    if parts.tokenizer is None:
        raise BadInput(f"{parts.header.name} carries no tokenizer, so it cannot go on with a text.")
    return parts.tokenizer


def beginnings(parts: Assembly, args: argparse.Namespace, count: int, size: int) -> list[list[int]]:
    """So many runs of `size` tokens, from random places, each after the mark of a text's begin where there is one."""
    numbers, words = np.random.default_rng(20), words_of(parts)
    bos = words.encode("", add_special=True)[:1]
    if args.data is not None:
        from edgewise.train import dataset

        data = dataset.load(args.data)
        found = []
        for text in data.texts.values():
            starts = text.starts[text.starts < len(text.tokens) - size]
            found += [text.tokens[at : at + size - len(bos)].tolist()
                      for at in numbers.choice(starts, -(-count // len(data.texts)))]  # fmt: skip
        return [[*bos, *found[i]] for i in numbers.permutation(len(found))[:count]]
    where = args.text or stdlib_folder()
    files = [where] if where.is_file() else sorted(p for p in where.rglob("*") if p.suffix in SUFFIXES)
    files = [file for file in files if "site-packages" not in file.parts and file.stat().st_size > 4 * size]
    if not files:
        raise BadInput(f"{where} holds no text that is long enough. Name a file, or a folder with *.py, *.md, *.txt.")
    texts: dict[Path, str] = {}
    found = []
    while len(found) < count:
        file = files[int(numbers.integers(len(files)))]
        whole = texts.setdefault(file, file.read_text(encoding="utf-8", errors="ignore"))
        begin = whole.find("\n", int(numbers.integers(max(1, len(whole) - 8 * size)))) + 1
        ids = words.encode(whole[begin : begin + 12 * size])[: size - len(bos)]
        if len(ids) == size - len(bos):
            found.append([*bos, *ids])
    return found


def write(parts: Assembly, args: argparse.Namespace, quiet: bool = False) -> OwnText:
    """Lets the model write `args.tokens` tokens. Texts that ended early are left out."""
    length = min(LENGTH if not args.smoke else 40, parts.context)
    prompt = min(PROMPT, length // 3)
    count = max(8, args.tokens // (length - prompt))
    asked = beginnings(parts, args, count, prompt)
    numbers = np.random.default_rng(21)
    done: list[list[int]] = []
    with progress(count, quiet) as show:
        for first in range(0, count, BATCH):
            some = asked[first : first + BATCH]
            params = [
                SamplingParams(
                    temperature=0.0 if numbers.random() < GREEDY else WARM, seed=first + i, max_tokens=length - prompt,
                    ignore_eos=True,
                )
                for i in range(len(some))
            ]  # fmt: skip
            done += _decode(parts.engine, some, params)
            show(len(done), "the model writes", first % (8 * BATCH) == 0)
    whole = [text for text in done if len(text) == length]
    if len(whole) < 4:
        raise BadInput(f"{parts.header.name} could not go on from its text: {len(whole)} of {count} came to an end.")
    return OwnText(np.array(whole, np.int32), prompt)


def _decode(engine: Any, asked: Sequence[list[int]], params: Sequence[SamplingParams]) -> list[list[int]]:
    texts = {engine.add(Request(tuple(ids), one)): list(ids) for ids, one in zip(asked, params, strict=True)}
    while engine.has_work():
        for event in engine.step():
            texts[event.request_id] += event.tokens
    return list(texts.values())


def states_of(parts: Assembly, text: OwnText, quiet: bool = False) -> npt.NDArray[np.float16]:
    """After the last norm, of every token: (texts, length, dim)."""
    found = np.empty((*text.tokens.shape, parts.spec.dim), np.float16)
    with progress(len(found), quiet) as show:
        for i, row in enumerate(text.tokens.tolist()):
            found[i] = np.concatenate(list(parts.runner.states(row, len(row))))
            show(i + 1, "hidden states", False)
    return found


def projection_of(parts: Assembly) -> npt.NDArray[np.float32]:
    """What turns states into logits, as the engine has it: (vocab, dim)."""
    unit = parts.device.upload(np.eye(parts.spec.dim, dtype=np.float32))
    return np.ascontiguousarray(parts.device.download(parts.model.logits(unit)).T)


def embeddings_of(parts: Assembly) -> npt.NDArray[np.float32]:
    """What the engine makes of every token before the first layer: (vocab, dim)."""
    return embedded(parts.device, parts.model, parts.kv, np.arange(parts.spec.vocab, dtype=np.int32)).copy()
