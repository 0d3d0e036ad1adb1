"""Heads on the target's last hidden state guess the tokens after the next one; their best guesses make a tree.

Head k says h + scale * silu(W_k h + b_k), and a projection to the vocabulary makes logits of it, for the token k + 1
places after the next one. The projection is the target's own (small heads: dim x dim numbers each, and one reading of
the vocabulary's weights for all heads), unless the file brings one for a head, as the authors' files do. Which ranks of
which heads are combined is found anew for each pass, from how sure the heads are of their tokens and how often they
were right when they were that sure (EAGLE-2's dynamic trees); or searched once, from how often each rank came true; or
read from a JSON list of paths; or, as a control, Cartesian. A tree has as many nodes as pay, by what passes cost here
and what came true; where none do, the heads rest and the pass is the plain one.
The paper's heads do not know the next token, although it is known when they draft. A root block, where the file has
one, mixes it into the state that all heads read: h + scale * O silu(S h + T e + b), e the token's embedding.

Paper:  Cai et al., Medusa, 2024, arXiv:2401.10774; trees: Li et al., EAGLE-2, 2024, arXiv:2406.16858
Exact.
Needs:  REWIND, TREE; heads trained for this model (`edgewise train medusa`)
Cost:   one reading of the heads and of the vocabulary projection a draft; a row and, a branch, a KV page in the pass
Status: kept
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, Incompatible, Tap
from edgewise.decode.api import Draft, SeqView, Target
from edgewise.decode.choices import DYNAMIC, calibrated, sureness
from edgewise.decode.drafting_weights import beside, read_tensors
from edgewise.decode.guessing import AUTO, Guessed, Listens, guesses_of, node_count
from edgewise.kernels.api import Array, Floats, Weight
from edgewise.kv.api import KVCache
from edgewise.models.api import Model

WEIGHT, BIAS, VOCAB = "{}.0.linear.weight", "{}.0.linear.bias", "{}.1.weight"
ROOT = ("root.state.weight", "root.token.weight", "root.state.bias", "root.out.weight")
FORMATS = {"f32": "F32", "bf16": "BF16", "q8_0": "Q8_0"}


class MedusaSpeculator(Listens):
    """heads: file; default: the one beside the model. tree: "dynamic" ("searched" where the file does not tell how sure
    heads are when they are right), "searched", "cartesian", widths as 3x2x1, or a JSON file. nodes: of a dynamic,
    searched or Cartesian tree; auto: as many of the first two as pay, measured all the time, or none.
    depth: heads in use at most. dtype: the heads' numbers, f32, bf16 or q8_0. shuffle: a control; with a seed the heads
    speak of other tokens."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.TREE})
    taps: ClassVar[frozenset[Tap]] = frozenset({Tap.STATES})
    layer = -1  # after all of them

    def __init__(
        self, heads: str = "", tree: str = DYNAMIC, nodes: int | str = AUTO, depth: int = 16, dtype: str = "q8_0",
        shuffle: int = 0,
    ) -> None:
        node_count("medusa", nodes, depth)
        if dtype not in FORMATS:
            raise BadInput(f"speculator 'medusa': dtype={dtype!r} is none of {', '.join(FORMATS)}.")
        self.heads, self.tree, self.nodes, self.depth, self.dtype = str(heads), str(tree), nodes, depth, dtype
        self.shuffle = shuffle

    def prepare(self, target: Target) -> int:
        path = Path(self.heads) if self.heads else beside(target.header, "medusa")
        if not path.is_file():
            raise BadInput(
                f"{target.header.name} has no heads: {path} is not there. Train some with `edgewise train medusa "
                f"{target.header.files[0] if target.header.files else 'MODEL'}`, or name a file: medusa:heads=FILE."
            )
        metadata, tensors = read_tensors(path)
        try:
            self._scale = float(metadata.get("scale", "1"))
        except ValueError:
            raise BadInput(f"{path}: the scale {metadata['scale']!r} is no number.") from None
        dim, vocab, device = target.spec.dim, target.spec.vocab, target.device
        there = next(k for k in itertools.count() if WEIGHT.format(k) not in tensors)
        if not there:
            raise BadInput(f"{path} has no heads: the tensor '{WEIGHT.format(0)}' is missing.")
        shapes: dict[str, tuple[int, ...]] = {}
        for k in range(there):
            shapes |= {WEIGHT.format(k): (dim, dim), BIAS.format(k): (dim,), VOCAB.format(k): (vocab, dim)}
        if any(name in tensors for name in ROOT):
            inner = len(tensors[ROOT[2]]) if ROOT[2] in tensors else 0
            shapes |= dict(zip(ROOT, ((inner, dim), (inner, dim), (inner,), (dim, inner)), strict=True))
            missing = [name for name in ROOT if name not in tensors]
            if missing:
                raise BadInput(f"{path}: the root block lacks '{missing[0]}'. Train heads anew.")
        for name, shape in shapes.items():
            found = tensors.get(name)
            if found is not None and found.shape != shape:
                raise Incompatible(
                    f"{path}: '{name}' has the shape {found.shape}, but {target.header.name} needs "
                    f"{shape}: the heads were trained for another model. Train heads for this one."
                )
        accuracy = calibrated(path, tensors.get("accuracy"), there)[: self.depth]
        chances = sureness(path, tensors.get("chances"), there)
        self._guesses = guesses_of("medusa", self.tree, self.nodes, accuracy, chances)
        use = self._guesses.depth
        self._device = device
        zeros = np.zeros(dim, np.float32)
        self._weight = self._load(np.concatenate([tensors[WEIGHT.format(k)] for k in range(use)]))
        self._bias = device.upload(np.concatenate([tensors.get(BIAS.format(k), zeros) for k in range(use)])[None])
        own = {k: tensors[VOCAB.format(k)] for k in range(use) if VOCAB.format(k) in tensors}
        self._own = {k: self._load(values) for k, values in own.items()}
        self._mixed = np.random.default_rng(self.shuffle).permutation(vocab) if self.shuffle else None
        self._root: tuple[Weight, Array, Weight] | None = None
        if ROOT[0] in tensors:
            both = self._load(np.concatenate([tensors[name] for name in ROOT[:2]], axis=1))
            self._root = (both, device.upload(tensors[ROOT[2]][None]), self._load(tensors[ROOT[3]]))
        numbers = use * dim * dim + len(own) * vocab * dim + sum(tensors[name].size for name in ROOT if name in tensors)
        return int(numbers * {"f32": 4, "bf16": 2, "q8_0": 34 / 32}[self.dtype])

    def _load(self, values: Floats) -> Weight:
        raw = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
        into = FORMATS[self.dtype] if values.shape[1] % 32 == 0 else "F32"
        return self._device.load(
            values.shape, "F32", lambda at, size: raw[at : at + size], into=None if into == "F32" else into
        )

    def attach(self, model: Model, kv: KVCache) -> None:
        self._model, self._kv = model, kv

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        return self._guesses.drafts(seqs, budget, self._best)

    def _best(self, seqs: Sequence[SeqView], states: Floats, depth: int) -> Guessed:
        """The first heads' best tokens, and how sure they are of them: (sequences, depth, ranks)."""
        device, guesses = self._device, self._guesses
        each, dim = states.shape
        states = self._rooted(seqs, states)
        said = device.download(device.linear(device.upload(states), self._weight, self._bias))
        said = states[:, None] + np.float32(self._scale) * _silu(said.reshape(each, -1, dim)[:, :depth])
        shared = [k for k in range(depth) if k not in self._own]
        shape = (each, depth, guesses.width)
        found, sure = np.empty(shape, np.int64), np.empty(shape, np.float32)

        def read(logits: Floats, heads: list[int]) -> None:
            best, chances = guesses.ranked(logits)
            found[:, heads], sure[:, heads] = (part.reshape(each, len(heads), -1) for part in (best, chances))

        if shared:
            read(device.download(self._model.logits(device.upload(said[:, shared].reshape(-1, dim)))), shared)
        for k, weight in itertools.takewhile(lambda item: item[0] < depth, self._own.items()):
            read(device.download(device.linear(device.upload(np.ascontiguousarray(said[:, k])), weight)), [k])
        return (found if self._mixed is None else self._mixed[found]), sure

    def _rooted(self, seqs: Sequence[SeqView], states: Floats) -> Floats:
        """The states, told which token came after them."""
        if self._root is None:
            return states
        both, bias, out = self._root
        device, whole = self._device, np.concatenate((states, self.newest(seqs)), 1)
        inner = _silu(device.download(device.linear(device.upload(whole), both, bias)))
        told: Floats = states + np.float32(self._scale) * device.download(device.linear(device.upload(inner), out))
        return told


def _silu(x: Floats) -> Floats:
    y: Floats = x / (1 + np.exp(-np.clip(x, -80, 80)))
    return y
