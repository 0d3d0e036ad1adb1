"""From documents to arrays of token ids on disk, and from those to batches that depend on (seed, step) alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgewise.base import BadInput
from edgewise.train.corpus import Document, gather, summary, top_level_pieces
from edgewise.train.recipe import Recipe
from edgewise.train.tokenizer import BOS, EOS, load_tokenizer, save_tokenizer, train_tokenizer

IGNORE = -100  # a target that costs nothing


@dataclass(frozen=True)
class Data:
    """Token ids of all documents, each as <|bos|> text <|eos|>, and where top-level statements begin."""

    train: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.int64]  # positions in `train`
    held_out: npt.NDArray[np.uint16]
    bos: int
    eos: int
    about: dict[str, object]  # the corpus summary


def prepare(recipe: Recipe, root: Path, folder: Path) -> None:
    """Writes tokenizer, token arrays and summary into `folder`. Deterministic for one library and one recipe."""
    documents, notes = gather(root, recipe.data.held_out_percent)
    tokenizer = train_tokenizer((d.text for d in documents if not d.held_out), recipe.model.vocab)
    save_tokenizer(tokenizer, folder, recipe.model.context)
    bos, eos = (int(tokenizer.token_to_id(mark) or 0) for mark in (BOS, EOS))

    def encode(chosen: list[Document]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        starts: list[int] = []
        for document in chosen:
            ids.append(bos)
            # A piece ends with a newline, where the pattern cuts anyway: piecewise equals whole.
            for piece in tokenizer.encode_batch(top_level_pieces(document.text)):
                starts.append(len(ids))
                ids.extend(piece.ids)
            ids.append(eos)
        return ids, starts

    train, starts = encode([d for d in documents if not d.held_out])
    held_out, _ = encode([d for d in documents if d.held_out])
    np.save(folder / "train.npy", np.array(train, np.uint16))
    np.save(folder / "starts.npy", np.array(starts, np.int64))
    np.save(folder / "held_out.npy", np.array(held_out, np.uint16))
    about = summary(documents, notes) | {"train_tokens": len(train), "held_out_tokens": len(held_out)}
    (folder / "corpus.json").write_text(json.dumps(about, indent=2) + "\n")
    (folder / "held_out.txt").write_text(
        "".join(d.text for d in documents if d.held_out), encoding="utf-8", errors="surrogatepass"
    )


def load(folder: Path) -> Data:
    """What `prepare` wrote. Raises BadInput when something is missing."""
    try:
        arrays = [np.load(folder / f"{name}.npy") for name in ("train", "starts", "held_out")]
        about = json.loads((folder / "corpus.json").read_text())
        tokenizer = load_tokenizer(folder)
        bos, eos = (int(tokenizer.token_to_id(mark) or 0) for mark in (BOS, EOS))
    except FileNotFoundError as error:
        raise BadInput(
            f"{folder} is not a prepared corpus ({error}). Make one: python -m edgewise.train prepare."
        ) from error
    return Data(arrays[0], arrays[1], arrays[2], bos, eos, about)


class Sampler:
    """Random windows. Batch number `step` is a function of the seed and the step: resuming needs no saved state."""

    def __init__(self, data: Data, recipe: Recipe, device: str) -> None:
        context = recipe.model.context
        if len(data.train) < context + 2:
            raise BadInput(f"The corpus has {len(data.train)} tokens, fewer than one window of {context}.")
        self.tokens = torch.from_numpy(data.train.astype(np.int32)).to(device)
        self.room = len(data.train) - context - 1
        self.starts = data.starts[(data.starts <= self.room) & (data.starts >= 1)]
        self.snippet_share = recipe.data.snippet_share if len(self.starts) else 0.0
        self.recipe, self.bos, self.device = recipe, data.bos, device

    def window(self, step: int) -> int:
        """Tokens of a window at this step: short ones first, for attention is dear, the whole context at the end."""
        plan = self.recipe.train
        return plan.window if step < (1 - plan.long_share) * plan.steps else self.recipe.model.context

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, both (windows, tokens) int64."""
        size = self.window(step)
        batch = max(1, self.recipe.train.batch_tokens // size)
        rng = np.random.default_rng((self.recipe.train.seed, step))
        anywhere = rng.integers(0, self.room, batch)
        snippet = rng.random(batch) < self.snippet_share
        if snippet.any():
            anywhere[snippet] = self.starts[rng.integers(0, len(self.starts), int(snippet.sum()))] - 1
        begin = torch.from_numpy(anywhere).to(self.device)
        window = self.tokens[begin[:, None] + torch.arange(size + 1, device=self.device)].long()
        inputs, targets = window[:, :-1].clone(), window[:, 1:]
        inputs[torch.from_numpy(snippet).to(self.device), 0] = self.bos
        return inputs.contiguous(), targets.contiguous()


def held_out_windows(tokens: npt.NDArray[np.uint16], context: int, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of `context`, `stride` apart, in which every token but the first is a target exactly once.

    Returns inputs and targets, (windows, context) int64; targets already scored, and padding, are IGNORE.
    """
    inputs, targets = [], []
    scored = 1
    for begin in range(0, max(1, len(tokens) - 1), stride):
        window = tokens[begin : begin + context + 1].astype(np.int64)
        if begin + len(window) <= scored:
            break
        row = np.full((2, context), IGNORE, np.int64)
        row[0] = 0
        row[0, : len(window) - 1] = window[:-1]
        fresh = scored - (begin + 1)
        row[1, fresh : len(window) - 1] = window[1 + fresh :]
        scored = begin + len(window)
        inputs.append(row[0])
        targets.append(row[1])
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))
