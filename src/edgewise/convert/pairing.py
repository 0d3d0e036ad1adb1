"""From two recordings of one model to the tensors of the second dialect, each made of rows of the first."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from edgewise.base import Unsupported
from edgewise.convert.recording import Recorder, Wanted
from edgewise.convert.rows import ComputedRows, GatheredRows, Rows, row_count, values


def pair(source: Recorder, target: Recorder, tensors: Mapping[str, Rows]) -> dict[str, Rows]:
    """Every tensor of the target dialect by its stored name, in the order the model asks for them.

    tensors: the source's, by stored name. Raises Unsupported when the two dialects do not line up.
    """
    if [w.shape for w in source.wanted] != [w.shape for w in target.wanted]:
        raise Unsupported("The two dialects describe this model with different weights, so it cannot be converted.")
    pieces: dict[str, list[tuple[Wanted, Wanted]]] = {}
    for ours, theirs in zip(source.wanted, target.wanted, strict=True):
        for stored in dict.fromkeys(name for name, _ in theirs.places):
            pieces.setdefault(stored, []).append((ours, theirs))
    return {
        stored: _vector(stored, parts[0], tensors) if len(shape := target.stored[stored]) == 1 else
        _matrix(stored, shape, parts, tensors)
        for stored, parts in pieces.items()
    }  # fmt: skip


def _vector(stored: str, piece: tuple[Wanted, Wanted], tensors: Mapping[str, Rows]) -> Rows:
    ours, theirs = piece
    (name, here), (_, there) = ours.places[0], theirs.places[0]
    rows = tensors[name]
    shift = np.float32(ours.plus) - np.float32(theirs.plus)

    def make(first: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        held = values(rows, 0, row_count(rows)).reshape(-1)
        out = np.empty_like(held)
        out[there] = held[here]
        return (out + shift if shift else out)[None]

    return ComputedRows((len(here),), make)


def _matrix(
    stored: str, shape: tuple[int, ...], parts: list[tuple[Wanted, Wanted]], tensors: Mapping[str, Rows]
) -> Rows:
    total = int(np.prod(shape[:-1]))
    origin = np.full(total, -1, np.int64)  # which source tensor a row comes from
    index = np.zeros(total, np.int64)  # and which row of it
    names: list[str] = []
    for ours, theirs in parts:
        place, row = _flat(ours, names)
        done = 0
        for name, rows in theirs.places:
            if name == stored:
                origin[rows], index[rows] = place[done : done + len(rows)], row[done : done + len(rows)]
            done += len(rows)
    if (origin < 0).any():
        raise Unsupported(f"Tensor '{stored}' would have rows that the source does not give.")
    cuts = [0, *(np.flatnonzero(np.diff(origin)) + 1).tolist(), total]
    runs = [(tensors[names[origin[a]]], index[a:b]) for a, b in pairwise(cuts)]
    whole = runs[0][0]
    if len(runs) == 1 and whole.shape == shape and np.array_equal(index, np.arange(total)):
        return whole
    return GatheredRows(shape, runs)


def _flat(wanted: Wanted, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each row of a weight: the number of its tensor in `names` (which grows), and its row there."""
    place, row = [], []
    for name, rows in wanted.places:
        if name not in names:
            names.append(name)
        place.append(np.full(len(rows), names.index(name)))
        row.append(rows)
    return np.concatenate(place), np.concatenate(row)
