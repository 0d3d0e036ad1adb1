"""Trees of ranks: searched, Cartesian, read, refused."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.decode.choices import (
    ChoiceTree,
    DynamicTree,
    best_cartesian,
    cartesian,
    expected,
    ranked_rows,
    read_tree,
    searched,
    sure_class,
    surely,
)

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


def test_a_dynamic_tree_is_what_should_come_true_most_often() -> None:
    """Against all of its candidates, one by one."""
    numbers = np.random.default_rng(5)
    accuracy = np.sort(numbers.random((4, 10)).astype(np.float32) * 0.5, axis=1)[:, ::-1].copy()
    chances = np.sort(numbers.random((4, 10, 16)).astype(np.float32), axis=2)
    tree = DynamicTree(accuracy, chances)
    sure = np.sort(numbers.random((3, 4, 10)).astype(np.float32), axis=2)[:, :, ::-1]
    given = tree.given(sure)
    guesses = np.arange(40).reshape(4, 10)
    for one, row in zip(sure, given, strict=True):
        each = [[chances[place, rank, int(sure_class(one[place, rank]))] for rank in range(10)] for place in range(4)]
        order, worth = tree.best(row, 20)
        tokens, parents = tree.draft(order, guesses)
        assert worth == sorted(worth, reverse=True)
        chosen: list[tuple[int, ...]] = []
        for token, parent in zip(tokens, parents, strict=True):
            assert parent < len(chosen)
            chosen.append((*(chosen[parent] if parent >= 0 else ()), token % 10))
            assert token // 10 == len(chosen[-1]) - 1
        assert len(set(chosen)) == 20
        chance = {path: np.prod([each[at][rank] for at, rank in enumerate(path)]) for path in paths(tree.among)}
        assert np.allclose(worth, [chance[path] for path in chosen], rtol=1e-5)
        assert max(chance[path] for path in chance if path not in chosen) <= min(worth) + 1e-9


def test_sureness_falls_into_classes_by_odds() -> None:
    assert sure_class(np.array([0.0, 0.499, 0.501, 0.74, 1.0])).tolist() == [0, 7, 8, 9, 15]
    logits = np.array([[0.0, 1.0, 3.0, -2.0], [5.0, 5.0, 5.0, 5.0]], np.float32)
    sure = surely(logits, ranked_rows(logits, 2))
    whole = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(sure, [[whole[0, 2], whole[0, 1]], [0.25, 0.25]])
