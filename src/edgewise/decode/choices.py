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
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.kernels.api import Floats
from edgewise.kernels.parsing import parse_json
from edgewise.weights import bundle

Ranks = tuple[int, ...]
Chances = npt.NDArray[np.float64]
LARGEST = 1 << 16  # bytes of a tree file
GUESS = 0.5  # a head's chance to be right where nothing was measured
RANKS = 10
SEARCHED, DYNAMIC = "searched", "dynamic"
SURENESS = 16  # classes


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


def surely(logits: Floats, best: Any) -> Any:
    """The chance that a softmax of each row (rows, vocab) gives the columns `best` (rows, width)."""
    top = np.take_along_axis(logits, best[:, :1], 1)
    sure = np.exp(np.take_along_axis(logits, best, 1) - top) / np.exp(logits - top).sum(1, keepdims=True)
    return sure.astype(np.float32, copy=False)


def ranked_rows(logits: Floats, width: int) -> Any:
    """Of each row (rows, vocab) the columns of the largest values, of equals the first one: (rows, width)."""
    left, rows = logits.copy(), np.arange(len(logits))
    found = np.empty((len(logits), width), np.int64)
    for rank in range(width):  # so many times the maximum: a third of the time of a partition of the whole rows
        found[:, rank] = best = left.argmax(axis=1)
        left[rows, best] = -np.inf
    return found


def sure_class(chance: Any) -> Any:
    """Which class of sureness guesses are in that were made with these chances: odds of e to the -8 to e to the 7."""
    some = np.clip(chance, 1e-4, 1 - 1e-4)
    return np.clip(np.floor(np.log(some / (1 - some))) + SURENESS // 2, 0, SURENESS - 1).astype(np.int64)


def sureness(path: Path, chances: Floats | None, heads: int) -> Floats | None:
    """A file's calibration by sureness (heads, ranks, classes), checked. Raises BadInput."""
    if chances is not None and (
        chances.shape != (heads, RANKS, SURENESS) or chances.min() < 0 or chances.max() > 1
    ):
        raise BadInput(
            f"{path}: 'chances' must be the chances of {heads} heads, {RANKS} ranks and {SURENESS} classes of sureness."
        )
    return chances


class DynamicTree:
    """A tree for each pass: of the paths that come true most often, those that should this time.

    Paper: Li et al., EAGLE-2, 2024, arXiv:2406.16858, section 4; here with guesses that are all made beforehand, and
    their chances as calibrated. chances (heads, ranks, classes): of a guess, where those before it on its path
    were right."""

    CANDIDATES = 96

    def __init__(self, accuracy: Floats, chances: Floats) -> None:
        self.among = searched(accuracy, self.CANDIDATES)
        self.width = self.among.width
        self._chances = chances.astype(np.float64)
        self._parents = np.array(self.among.parents)
        self._depths, self._ranks = np.array(self.among.depths), np.array(self.among.ranks)
        self._levels = [np.flatnonzero(self._depths == depth) for depth in range(self.among.depth)]

    def given(self, sure: Floats) -> Chances:
        """Of each sequence how often each candidate comes true where its parent does: (sequences, candidates).
        sure (sequences, heads, ranks): the chance that each head gives each of its best tokens."""
        _, heads, ranks = sure.shape
        of_place, of_rank = np.ogrid[:heads, :ranks]
        each = self._chances[of_place, of_rank, sure_class(sure)]
        found = np.zeros((len(sure), len(self._parents)))
        for depth, level in enumerate(self._levels[:heads]):
            found[:, level] = each[:, depth, self._ranks[level]]
        return found

    def best(self, given: Chances, most: int) -> tuple[Any, list[float]]:
        """The candidates that should come true most often, each after its parent, and how often. given (candidates,):
        where the parent does."""
        likely = given.copy()
        for level in self._levels[1:]:
            likely[level] *= likely[self._parents[level]]
        order = np.argsort(-likely, kind="stable")[:most]
        return order, likely[order].tolist()

    def draft(self, order: Any, guesses: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens and parents of these candidates. guesses (heads, ranks)."""
        place = np.full(len(self._parents) + 1, -1)
        place[order] = np.arange(len(order))  # the last one stays -1: the parent of first tokens
        parents = place[self._parents[order]]
        return tuple(guesses[self._depths[order], self._ranks[order]].tolist()), tuple(parents.tolist())


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
