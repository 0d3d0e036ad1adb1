"""What the loop asks of a draft tree. Nodes are in parent-before-child order; depth 1 follows the last real token."""

from collections.abc import Sequence

from edgewise.base import Incompatible
from edgewise.decode.api import Draft


def fitting(draft: Draft, depth: int) -> Draft:
    """The nodes of at most this depth. Raises Incompatible when it is no tree at all."""
    depths: list[int] = []
    for node, parent in enumerate(draft.parents):
        if not -1 <= parent < node:
            raise Incompatible(f"This draft is no tree: node {node} has the parent {parent}.")
        depths.append(1 if parent < 0 else depths[parent] + 1)
    if len(depths) != len(draft.tokens):
        raise Incompatible(f"This draft is no tree: {len(draft.tokens)} tokens and {len(depths)} parents.")
    return draft if max(depths, default=0) <= depth else kept(draft, [i for i, d in enumerate(depths) if d <= depth])


def kept(draft: Draft, nodes: Sequence[int]) -> Draft:
    """Some of its nodes, with all their ancestors."""
    place = {-1: -1, **{node: i for i, node in enumerate(nodes)}}
    return Draft(
        tuple(draft.tokens[i] for i in nodes), tuple(place[draft.parents[i]] for i in nodes),
        tuple(draft.odds[i] for i in nodes) if draft.odds else (), draft.replaced,
    )  # fmt: skip


def leaves(draft: Draft) -> list[tuple[int, int]]:
    """(node, depth) of each leaf."""
    parents = set(draft.parents)
    found = []
    for node in range(len(draft.tokens)):
        if node not in parents:
            found.append((node, len(path(draft, node))))
    return found


def path(draft: Draft, node: int) -> list[int]:
    """From depth 1 to the node."""
    found = []
    while node >= 0:
        found.append(node)
        node = draft.parents[node]
    return found[::-1]


def first_branch(draft: Draft, leaf: int) -> Draft:
    """The chain that ends in this leaf."""
    return kept(draft, path(draft, leaf))


def within(draft: Draft, cached: int, page: int, pages: int) -> Draft:
    """The nodes whose branches take no more than so many pages of `page` tokens, the first ones first: a node that goes
    on with a branch costs nothing but a page now and then. cached: tokens that all branches share."""

    def taken(depth: int) -> int:
        return -(-(cached + 1 + depth) // page) - cached // page if depth else 0

    depths, ends = {-1: 0}, {-1}
    some: list[int] = []
    for node, parent in enumerate(draft.parents):
        if parent not in depths:
            continue
        depth = depths[parent] + 1
        cost = taken(depth) - (taken(depth - 1) if parent in ends else 0)
        if cost <= pages:
            pages -= cost
            ends.discard(parent)
            ends.add(node)
            depths[node] = depth
            some.append(node)
    return draft if len(some) == len(draft.tokens) else kept(draft, some)


def leaf_below(draft: Draft, node: int) -> int:
    """The index, among the leaves, of the first one that has this node in its path."""
    for at, (leaf, _) in enumerate(leaves(draft)):
        if node in path(draft, leaf):
            return at
    raise AssertionError(node)
