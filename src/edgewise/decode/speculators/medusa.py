"""Heads on the target's last hidden state guess the tokens after the next one; their best guesses make a tree.

Head k says h + scale * silu(W_k h + b_k), and a projection to the vocabulary makes logits of it, for the token k + 1
places after the next one. The projection is the target's own (small heads: dim x dim numbers each, and one reading of
the vocabulary's weights for all heads), unless the file brings one for a head, as the authors' files do. Which ranks of
which heads are combined is searched once, from how often each came true on a calibration text, kept in the file; or
read from a JSON list of paths; or, as a control, Cartesian. A searched tree is cut before each pass to the nodes that
pay, by what passes cost here and what came true; where none do, the heads rest and the pass is the plain one.

Paper:  Cai et al., Medusa, 2024, arXiv:2401.10774
Exact.
Needs:  REWIND, TREE; heads trained for this model (`edgewise train medusa`)
Cost:   one reading of the heads and of the vocabulary projection a draft; a row and, a branch, a KV page in the pass
Status: kept
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, Incompatible, Tap
from edgewise.decode.api import Draft, SeqView, Target
from edgewise.decode.choices import SEARCHED, calibrated, ranked_rows
from edgewise.decode.drafting_weights import beside, read_tensors
from edgewise.decode.guessing import AUTO, Guesses, Listens, node_count
from edgewise.kernels.api import Floats, Weight
from edgewise.kv.api import KVCache
from edgewise.models.api import Model

WEIGHT, BIAS, VOCAB = "{}.0.linear.weight", "{}.0.linear.bias", "{}.1.weight"
FORMATS = {"f32": "F32", "bf16": "BF16", "q8_0": "Q8_0"}


class MedusaSpeculator(Listens):
    """heads: file; default: the one beside the model. tree: "searched", "cartesian", widths as 3x2x1, or a JSON file.
    nodes: of a searched or Cartesian tree; auto: as many of a searched one as pay, measured all the time, or none.
    depth: heads in use at most. dtype: the heads' numbers, f32, bf16 or q8_0. shuffle: a control; with a seed the heads
    speak of other tokens."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.TREE})
    taps: ClassVar[frozenset[Tap]] = frozenset({Tap.STATES})
    layer = -1  # after all of them

    def __init__(
        self, heads: str = "", tree: str = SEARCHED, nodes: int | str = AUTO, depth: int = 16, dtype: str = "q8_0",
        shuffle: int = 0,
    ) -> None:
        node_count("medusa", nodes, depth)
        if dtype not in FORMATS:
            raise BadInput(f"speculator 'medusa': dtype={dtype!r} is none of {', '.join(FORMATS)}.")
        self.heads, self.tree, self.nodes, self.depth, self.dtype = str(heads), str(tree), nodes, depth, dtype
        self.shuffle = shuffle
        self._model: Any = None

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
        for k in range(there):
            shapes = {WEIGHT: (dim, dim), BIAS: (dim,), VOCAB: (vocab, dim)}
            for name, shape in shapes.items():
                found = tensors.get(name.format(k))
                if found is not None and found.shape != shape:
                    raise Incompatible(
                        f"{path}: '{name.format(k)}' has the shape {found.shape}, but {target.header.name} needs "
                        f"{shape}: the heads were trained for another model. Train heads for this one."
                    )
        accuracy = calibrated(path, tensors.get("accuracy"), there)[: self.depth]
        self._guesses = Guesses("medusa", self.tree, self.nodes, accuracy)
        use = self._guesses.tree.depth
        self._device = device
        zeros = np.zeros(dim, np.float32)
        self._weight = self._load(np.concatenate([tensors[WEIGHT.format(k)] for k in range(use)]))
        self._bias = device.upload(np.concatenate([tensors.get(BIAS.format(k), zeros) for k in range(use)])[None])
        own = {k: tensors[VOCAB.format(k)] for k in range(use) if VOCAB.format(k) in tensors}
        self._own = {k: self._load(values) for k, values in own.items()}
        self._mixed = np.random.default_rng(self.shuffle).permutation(vocab) if self.shuffle else None
        numbers = use * dim * dim + len(own) * vocab * dim
        return int(numbers * {"f32": 4, "bf16": 2, "q8_0": 34 / 32}[self.dtype])

    def _load(self, values: Floats) -> Weight:
        raw = np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
        into = FORMATS[self.dtype] if values.shape[1] % 32 == 0 else "F32"
        return self._device.load(
            values.shape, "F32", lambda at, size: raw[at : at + size], into=None if into == "F32" else into
        )

    def attach(self, model: Model, kv: KVCache) -> None:
        self._model = model

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        return self._guesses.drafts(seqs, budget, self._best)

    def _best(self, seqs: Sequence[SeqView], states: Floats, depth: int) -> Any:
        """The first heads' best tokens: (sequences, depth, ranks)."""
        device, tree = self._device, self._guesses.tree
        each, dim = states.shape
        said = device.download(device.linear(device.upload(states), self._weight, self._bias))
        said = said.reshape(each, tree.depth, dim)[:, :depth]
        said = states[:, None] + np.float32(self._scale) * (said / (1 + np.exp(-np.clip(said, -80, 80))))
        shared = [k for k in range(depth) if k not in self._own]
        found = np.empty((each, depth, tree.width), np.int64)
        if shared:
            logits = device.download(self._model.logits(device.upload(said[:, shared].reshape(-1, dim))))
            found[:, shared] = ranked_rows(logits, tree.width).reshape(each, len(shared), -1)
        for k, weight in itertools.takewhile(lambda item: item[0] < depth, self._own.items()):
            own = device.linear(device.upload(np.ascontiguousarray(said[:, k])), weight)
            found[:, k] = ranked_rows(device.download(own), tree.width)
        return found if self._mixed is None else self._mixed[found]
