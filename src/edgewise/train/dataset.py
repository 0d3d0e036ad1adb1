"""From texts to arrays of token ids on disk, and from those to batches that depend on (seed, step) alone.

A prepared folder has, for each text of SOURCES that was gathered, NAME.npy (token ids, each document as <|bos|> text
<|eos|>), NAME-starts.npy (where top-level statements or examples begin), NAME-said.npy for the tasks (1 where the
assistant speaks), NAME-held_out.npy; the tokenizer; held_out.txt (the library's held-out text) and corpus.json. What a
teacher wrote itself (OWN) joins when a pupil first wants it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from edgewise.base import BadInput
from edgewise.train import chat, tasks
from edgewise.train.corpus import Document, gather, summary, top_level_pieces
from edgewise.train.packages import gather_packages
from edgewise.train.recipe import OWN, Recipe
from edgewise.train.tokenizer import BOS, EOS, id_of, load_tokenizer, save_tokenizer, train_tokenizer

IGNORE = -100  # a target that costs nothing
HELD_OUT_TASKS = 12  # examples of every task and level in the held-out array
OWN_HELD_OUT = 0.03  # of the texts that a model wrote
ABOUT = "corpus.json"


@dataclass(frozen=True)
class Text:
    """Token ids of one source. starts: positions of a window's first own token. said: where a loss on answers falls."""

    tokens: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.uint16]
    said: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Data:
    texts: dict[str, Text]
    bos: int
    eos: int
    about: dict[str, Any] = field(default_factory=dict)  # the corpus summary

    @property
    def held_out(self) -> npt.NDArray[np.uint16]:
        """The library's held-out part: the yardstick of every member."""
        return self.texts["stdlib"].held_out


def prepare(
    recipe: Recipe, root: Path, folder: Path, *, tokenizer: Tokenizer | None = None, packages: bool = False
) -> None:
    """Writes tokenizer, token arrays and summary into `folder`. Deterministic for one library, packages and recipe.

    tokenizer: the family's; None trains one on the library's training part. packages: read installed packages too.
    """
    documents, notes = gather(root, recipe.data.held_out_percent)
    if tokenizer is None:
        tokenizer = train_tokenizer((d.text for d in documents if not d.held_out), recipe.model.vocab)
    tokenizer.encode_special_tokens = False
    save_tokenizer(tokenizer, folder, recipe.model.context)
    tokenizer.encode_special_tokens = True  # a mark inside a text is letters
    about = summary(documents, notes)
    sizes = {"stdlib": _save_documents(tokenizer, documents, folder, "stdlib")}
    if packages:
        more, rows = gather_packages(recipe.data.held_out_percent)
        sizes["packages"] = _save_documents(tokenizer, more, folder, "packages")
        about["packages"] = rows
        about["packages_sha256"] = summary(more, type(notes)())["sha256"]
    sizes["tasks"] = _save_tasks(tokenizer, recipe.data.tasks, folder)
    about |= {"train_tokens": sizes["stdlib"][0], "held_out_tokens": sizes["stdlib"][1], "tokens": sizes}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    held = "".join(d.text for d in documents if d.held_out)
    (folder / "held_out.txt").write_text(held, encoding="utf-8", errors="surrogatepass")


def _save_documents(
    tokenizer: Tokenizer, documents: Sequence[Document], folder: Path, name: str
) -> tuple[int, int]:  # fmt: skip
    bos, eos = (id_of(tokenizer, mark) for mark in (BOS, EOS))

    def encode(chosen: Iterable[Document]) -> tuple[list[int], list[int]]:
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

    train, starts = encode(d for d in documents if not d.held_out)
    held_out, _ = encode(d for d in documents if d.held_out)
    np.save(folder / f"{name}.npy", np.array(train, np.uint16))
    np.save(folder / f"{name}-starts.npy", np.array(starts, np.int64))
    np.save(folder / f"{name}-held_out.npy", np.array(held_out, np.uint16))
    return len(train), len(held_out)


def _save_tasks(tokenizer: Tokenizer, count: int, folder: Path) -> tuple[int, int]:
    ids: list[int] = []
    starts: list[int] = []
    said: list[int] = []
    for example in tasks.training(count):
        prompt, reply = chat.prompt_ids(tokenizer, example), chat.reply_ids(tokenizer, example)
        starts.append(len(ids) + 1)  # a window from here has <|bos|> put in front
        ids += prompt + reply
        said += [0] * len(prompt) + [1] * len(reply)
    held = [e for task in tasks.TASKS for level in range(1, tasks.LEVELS + 1)
            for e in tasks.held_out(task, level, HELD_OUT_TASKS)]  # fmt: skip
    held_out = [token for e in held for token in chat.prompt_ids(tokenizer, e) + chat.reply_ids(tokenizer, e)]
    np.save(folder / "tasks.npy", np.array(ids, np.uint16))
    np.save(folder / "tasks-starts.npy", np.array(starts, np.int64))
    np.save(folder / "tasks-said.npy", np.array(said, np.uint8))
    np.save(folder / "tasks-held_out.npy", np.array(held_out, np.uint16))
    return len(ids), len(held_out)


def save_own(texts: npt.NDArray[np.integer[Any]], author: str, folder: Path) -> None:
    """Adds texts (count, length) that a model wrote, each from <|bos|> on, to a prepared folder. author: says which."""
    held = max(1, round(OWN_HELD_OUT * len(texts)))
    length = texts.shape[1]
    train = texts[:-held].astype(np.uint16).reshape(-1)
    np.save(folder / f"{OWN}.npy", train)
    np.save(folder / f"{OWN}-starts.npy", np.arange(1, len(train), length, dtype=np.int64))
    np.save(folder / f"{OWN}-held_out.npy", texts[-held:].astype(np.uint16).reshape(-1))
    about = json.loads((folder / ABOUT).read_text())
    about["tokens"][OWN] = [len(train), held * length]
    about[OWN] = author
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def digest(folder: Path) -> str:
    """SHA-256 of everything a training reads: token arrays and tokenizer."""
    whole = hashlib.sha256()
    for file in sorted([*folder.glob("*.npy"), folder / "tokenizer.json"]):
        whole.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def load(folder: Path) -> Data:
    """What `prepare` wrote. Raises BadInput when something is missing."""
    texts = {}
    try:
        about = json.loads((folder / ABOUT).read_text())
        for name in about["tokens"]:
            tokens, starts, held_out = (np.load(folder / f"{name}{part}.npy") for part in ("", "-starts", "-held_out"))
            said = folder / f"{name}-said.npy"
            texts[name] = Text(tokens, starts, held_out, np.load(said) if said.is_file() else None)
        tokenizer = load_tokenizer(folder)
        bos, eos = (id_of(tokenizer, mark) for mark in (BOS, EOS))
    except (FileNotFoundError, KeyError) as error:
        raise BadInput(f"{folder} is not a prepared corpus ({error}). Make one: edgewise train prepare.") from error
    return Data(texts, bos, eos, about)


class Sampler:
    """Random windows. Batch number `step` is a function of the seed and the step: resuming needs no saved state."""

    def __init__(self, data: Data, recipe: Recipe, device: str) -> None:
        context = recipe.model.context
        shares = {name: share for name, share in recipe.data.shares.items() if share > 0}
        if missing := shares.keys() - data.texts.keys():
            raise BadInput(f"The corpus has no {', '.join(sorted(missing))}. Make it anew: edgewise train prepare.")
        if recipe.data.loss_on not in ("all", "answers"):
            raise BadInput(f"loss_on must be 'all' or 'answers' but is '{recipe.data.loss_on}'.")
        texts = [data.texts[name] for name in shares]
        if (fewest := min(len(text.tokens) for text in texts)) < context + 2:
            raise BadInput(f"The corpus has {fewest} tokens, fewer than one window of {context}.")
        # One array for all texts; a window stays inside its own, for it begins `context` before the end.
        self.tokens = torch.from_numpy(np.concatenate([t.tokens for t in texts]).astype(np.int32)).to(device)
        self.said = None
        if recipe.data.loss_on == "answers":
            said = [np.zeros(len(t.tokens), np.uint8) if t.said is None else t.said for t in texts]
            self.said = torch.from_numpy(np.concatenate(said)).to(device)
        self.first = np.cumsum([0, *(len(t.tokens) for t in texts)])
        self.rooms = np.array([len(t.tokens) - context - 1 for t in texts])
        rooms = zip(texts, self.rooms, strict=True)
        self.starts = [text.starts[(text.starts <= room) & (text.starts >= 1)] for text, room in rooms]
        # Examples are always begun at their beginning; of code, a share is.
        self.whole = np.array([1.0 if t.said is not None else recipe.data.snippet_share for t in texts])
        self.whole *= np.array([len(s) > 0 for s in self.starts])
        self.shares = np.array(list(shares.values())) / sum(shares.values())
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
        source = rng.choice(len(self.shares), batch, p=self.shares)
        begin = (rng.random(batch) * self.rooms[source]).astype(np.int64)
        whole = rng.random(batch) < self.whole[source]
        for row in np.flatnonzero(whole):
            starts = self.starts[source[row]]
            begin[row] = starts[int(rng.integers(len(starts)))] - 1
        at = torch.from_numpy(begin + self.first[source]).to(self.device)
        places = at[:, None] + torch.arange(size + 1, device=self.device)
        window = self.tokens[places].long()
        inputs, targets = window[:, :-1].clone(), window[:, 1:].clone()
        inputs[torch.from_numpy(whole).to(self.device), 0] = self.bos
        if self.said is not None:
            targets[self.said[places[:, 1:]] == 0] = IGNORE
        return inputs.contiguous(), targets


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


def held_out_examples(tokenizer: Tokenizer, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every held-out example of the tasks as a row of its own; only what the assistant says is a target."""
    rows = []
    for task in tasks.TASKS:
        for level in range(1, tasks.LEVELS + 1):
            for example in tasks.held_out(task, level, HELD_OUT_TASKS):
                prompt, reply = chat.prompt_ids(tokenizer, example), chat.reply_ids(tokenizer, example)
                ids = (prompt + reply)[: window + 1]
                row = np.full((2, window), IGNORE, np.int64)
                row[0] = 0
                row[0, : len(ids) - 1] = ids[:-1]
                row[1, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
                rows.append(row)
    both = torch.from_numpy(np.stack(rows))
    longest = int((both[:, 1] >= 0).any(0).nonzero().max()) + 1
    return both[:, 0, :longest].contiguous(), both[:, 1, :longest].contiguous()
