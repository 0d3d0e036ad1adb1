"""Trees of ranks: which of each head's best tokens are combined into a draft, the same ones at every step.

A path (2, 0) is the third best token of the first head, then the best of the second. A tree is a set of paths with all
their beginnings. Paper: Cai et al., Medusa, 2024, arXiv:2401.10774, section 2.3.3
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels.api import Floats
from edgewise.kernels.parsing import parse_json
from edgewise.weights import bundle

Ranks = tuple[int, ...]
LARGEST = 1 << 16  # bytes of a tree file
GUESS = 0.5  # a head's chance to be right where nothing was measured
RANKS = 10
SEARCHED = "searched"


@dataclass(frozen=True)
class ChoiceTree:
    """Nodes, each after its parent (-1: the last real token): depth from 0, rank among its head's best tokens."""

    parents: tuple[int, ...]
    depths: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def depth(self) -> int:
        return max(self.depths) + 1

    @property
    def width(self) -> int:
        return max(self.ranks) + 1


def tree_of(paths: Iterable[Ranks]) -> ChoiceTree:
    """In the order of the paths, which must have each beginning before what goes on from it."""
    places: dict[Ranks, int] = {(): -1}
    parents: list[int] = []
    for path in paths:
        parents.append(places[path[:-1]])
        places[path] = len(places) - 1
    nodes = [path for path in places if path]
    return ChoiceTree(tuple(parents), tuple(len(path) - 1 for path in nodes), tuple(path[-1] for path in nodes))


def searched(accuracy: Floats, nodes: int) -> ChoiceTree:
    """The nodes that come true most often: one by one the path with the largest product of chances.

    accuracy (heads, ranks): how often, on a calibration text, a head's token of this rank was the right one."""
    heads, ranks = accuracy.shape
    ahead: list[tuple[float, Ranks]] = [(-float(accuracy[0, 0]), (0,))]
    found: list[Ranks] = []
    seen: set[Ranks] = {(0,)}
    while ahead and len(found) < nodes:
        score, path = heappop(ahead)
        found.append(path)
        at = len(path) - 1
        next_rank = (*path[:-1], path[-1] + 1)
        deeper = (*path, 0)
        before = score / float(accuracy[at, path[-1]]) if accuracy[at, path[-1]] else 0.0
        for other, chance in (
            (next_rank, before * float(accuracy[at, path[-1] + 1]) if path[-1] + 1 < ranks else 0.0),
            (deeper, score * float(accuracy[at + 1, 0]) if at + 1 < heads else 0.0),
        ):
            if chance < 0 and other not in seen:
                seen.add(other)
                heappush(ahead, (chance, other))
    return tree_of(found)


def cartesian(widths: Sequence[int]) -> ChoiceTree:
    """Every combination of the first head's widths[0] best tokens, the second's widths[1], and so on."""
    levels = [itertools.product(*(range(width) for width in widths[: at + 1])) for at in range(len(widths))]
    return tree_of(itertools.chain.from_iterable(levels))


def expected(tree: ChoiceTree, accuracy: Floats) -> float:
    """Drafted tokens that should come true in a pass, if the heads were right or wrong independently."""
    chances: list[float] = []
    for parent, depth, rank in zip(tree.parents, tree.depths, tree.ranks, strict=True):
        chances.append((chances[parent] if parent >= 0 else 1.0) * float(accuracy[depth, rank]))
    return sum(chances)


def best_cartesian(accuracy: Floats, nodes: int) -> ChoiceTree:
    """Of all Cartesian trees with at most so many nodes the one with most expected tokens."""
    heads, ranks = accuracy.shape
    best: tuple[float, Ranks] = (0.0, (1,))

    def grow(widths: Ranks, size: int) -> None:
        nonlocal best
        for width in range(1, ranks + 1):
            wide = (*widths, width)
            now = size + prod(wide)
            if now > nodes:
                return
            best = max(best, (expected(cartesian(wide), accuracy), wide))
            if len(wide) < heads:
                grow(wide, now)

    grow((), 0)
    return cartesian(best[1])


def choose_tree(who: str, tree: str, nodes: int, accuracy: Floats) -> ChoiceTree:
    """By name ("searched", "cartesian"), by widths ("3x2x1"), or from a file. Raises BadInput."""
    heads, ranks = accuracy.shape
    if tree == SEARCHED:
        return searched(accuracy, nodes)
    if tree == "cartesian":
        return best_cartesian(accuracy, nodes)
    widths = tree.split("x")
    if not all(width.isdecimal() for width in widths):
        return read_tree(Path(tree), heads, ranks)
    wide = [int(width) for width in widths]
    if len(wide) > heads or not all(1 <= width <= ranks for width in wide):
        raise BadInput(f"speculator '{who}': tree={tree} may be {heads} widths of 1 to {ranks}.")
    return cartesian(wide)


def calibrated(path: Path, accuracy: Floats | None, heads: int) -> Floats:
    """A file's calibration, checked; where it has none, chances that halve with every head and rank. Raises BadInput.
    """
    if accuracy is None:
        return np.outer(GUESS ** np.arange(1, heads + 1), GUESS ** np.arange(RANKS)).astype(np.float32)
    if accuracy.shape != (heads, RANKS) or accuracy.min() < 0 or accuracy.max() > 1:
        raise BadInput(f"{path}: 'accuracy' must be the chances of {heads} heads and {RANKS} ranks.")
    return accuracy


def ranked_rows(logits: Floats, width: int) -> Any:
    """Of each row (rows, vocab) the columns of the largest values, of equals the first one: (rows, width)."""
    left, rows = logits.copy(), np.arange(len(logits))
    found = np.empty((len(logits), width), np.int64)
    for rank in range(width):  # so many times the maximum: a third of the time of a partition of the whole rows
        found[:, rank] = best = left.argmax(axis=1)
        left[rows, best] = -np.inf
    return found


def read_tree(path: Path, heads: int, ranks: int) -> ChoiceTree:
    """A JSON list of paths, as Medusa's own trees are written: [[0], [1], [0, 0], ...]. Raises BadInput."""
    found: Any = parse_json(bundle.read_bytes(path, LARGEST), str(path))
    rule = f"It must be a JSON list of paths such as [[0], [1], [0, 0]], of at most {heads} ranks below {ranks}"
    if not isinstance(found, list) or not found:
        raise BadInput(f"{path} is no tree. {rule}.")
    paths: set[Ranks] = set()
    for one in found:
        whole = isinstance(one, list) and all(isinstance(rank, int) and 0 <= rank < ranks for rank in one)
        if not whole or not 1 <= len(one) <= heads:
            raise BadInput(f"{path} is no tree: {str(one)[:60]} is no path of it. {rule}.")
        if tuple(one) in paths:
            raise BadInput(f"{path} is no tree: the path {one} is there twice. {rule}.")
        paths.add(tuple(one))
    for one in sorted(paths):
        if one[:-1] and one[:-1] not in paths:
            raise BadInput(f"{path} is no tree: it has the path {list(one)} but not {list(one[:-1])}. {rule}.")
    return tree_of(sorted(paths, key=lambda path: (len(path), path)))
