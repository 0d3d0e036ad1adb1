"""Trees of ranks: searched, Cartesian, read, refused."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.decode.choices import ChoiceTree, best_cartesian, cartesian, expected, read_tree, searched

ACCURACY = np.array([[0.6, 0.2, 0.1], [0.4, 0.15, 0.1], [0.3, 0.1, 0.05]], np.float32)


def paths(tree: ChoiceTree) -> set[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for parent, depth, rank in zip(tree.parents, tree.depths, tree.ranks, strict=True):
        assert -1 <= parent < len(found)
        found.append(((*found[parent], rank)) if parent >= 0 else (rank,))
        assert len(found[-1]) == depth + 1
    return set(found)


@pytest.mark.parametrize("nodes", [1, 2, 5, 12, 39, 100])
def test_a_searched_tree_has_the_largest_products(nodes: int) -> None:
    every = [path for depth in (1, 2, 3) for path in itertools.product(range(3), repeat=depth)]
    chance = {path: float(np.prod([ACCURACY[at, rank] for at, rank in enumerate(path)])) for path in every}
    best = sorted(every, key=lambda path: -chance[path])[:nodes]
    found = paths(searched(ACCURACY, nodes))
    assert len(found) == min(nodes, len(every))
    assert sum(chance[path] for path in found) == pytest.approx(sum(chance[path] for path in best))
    assert expected(searched(ACCURACY, nodes), ACCURACY) == pytest.approx(sum(chance[path] for path in found))


def test_a_head_that_is_never_right_has_no_nodes() -> None:
    accuracy = ACCURACY.copy()
    accuracy[1] = 0
    assert paths(searched(accuracy, 50)) == {(0,), (1,), (2,)}


def test_cartesian_trees() -> None:
    assert paths(cartesian([2, 1])) == {(0,), (1,), (0, 0), (1, 0)}
    assert cartesian([2, 2]).parents == (-1, -1, 0, 0, 1, 1)
    best = best_cartesian(ACCURACY, 8)
    assert len(best.parents) <= 8
    assert expected(best, ACCURACY) >= expected(cartesian([2, 1, 1]), ACCURACY)


def test_a_tree_is_read_with_parents_first(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[[0, 1], [0], [1], [0, 1, 2]]")
    tree = read_tree(tmp_path / "t.json", 3, 4)
    assert paths(tree) == {(0,), (1,), (0, 1), (0, 1, 2)}


@pytest.mark.parametrize(
    "found",
    [{}, [], [0], [[]], [[0], [0]], [[0], [1, 0]], [[4]], [[-1]], [["a"]], [[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, found: object) -> None:
    (tmp_path / "t.json").write_text(json.dumps(found))
    with pytest.raises(BadInput, match="is no tree"):
        read_tree(tmp_path / "t.json", 3, 4)
