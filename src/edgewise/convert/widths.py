"""Which format each part of a model gets: a path of recipes from the fewest bits everywhere to the most.

Errors of different parts are taken to add up, and a part's cost to grow with the squared error of its weights. Both
hold well enough to order the steps; whoever walks the path measures the recipes that matter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Recipe = tuple[int, ...]  # for each part, which of its formats


@dataclass(frozen=True)
class Part:
    """nbytes and errors: of each format, fewest bits first. cost: what the text loses under format `at`, in nats."""

    name: str
    nbytes: Sequence[int]
    errors: Sequence[float]
    cost: float
    at: int

    def costs(self) -> list[float]:
        """What each format should cost. A cost that was not measured above nothing still keeps the order of errors."""
        error = self.errors[self.at]
        return [max(self.cost, 1e-12) * (e / error if error > 0 else 0.0) for e in self.errors]


def path(parts: Sequence[Part]) -> list[Recipe]:
    """Recipes in ascending size, each one step of one part away from the last: the step that saves most per byte."""
    steps = sorted(
        (-gain / nbytes, i, to) for i, part in enumerate(parts) for gain, nbytes, to in _steps(part)
    )  # fmt: skip
    recipe = [0] * len(parts)
    found = [tuple(recipe)]
    for _, i, to in steps:
        recipe[i] = to
        found.append(tuple(recipe))
    return found


def _steps(part: Part) -> list[tuple[float, int, int]]:
    """(cost saved, bytes spent, format reached) along the lower convex hull of a part's costs over its sizes."""
    costs = part.costs()
    hull = [0]
    for to in range(1, len(costs)):
        if part.nbytes[to] <= part.nbytes[hull[-1]] or costs[to] >= costs[hull[-1]]:
            continue  # no smaller cost for more bytes
        while len(hull) > 1 and _slope(part, costs, hull[-2], hull[-1]) <= _slope(part, costs, hull[-1], to):
            hull.pop()
        hull.append(to)
    return [(costs[a] - costs[b], part.nbytes[b] - part.nbytes[a], b) for a, b in pairwise(hull)]


def _slope(part: Part, costs: Sequence[float], a: int, b: int) -> float:
    return (costs[a] - costs[b]) / (part.nbytes[b] - part.nbytes[a])


def parts_of(names: Sequence[str], layers: int) -> Mapping[str, list[str]]:
    """Stored names by the part they are chosen with: four a layer in a small model, one a layer in a deep one."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_part(name, layers), []).append(name)
    return found


def joined(parts: Mapping[str, list[str]], together: Sequence[Collection[str]]) -> dict[str, list[str]]:
    """Parts whose names must have one format as one part, by the name of the first."""
    found = {part: list(names) for part, names in parts.items()}
    for names in together:
        touched = [part for part, members in found.items() if not {*members}.isdisjoint(names)]
        for part in touched[1:]:
            found[touched[0]] += found.pop(part)
    return found


_KINDS = {
    "attn_q": "q k", "attn_k": "q k", "attn_qkv": "v o", "attn_v": "v o", "attn_output": "v o", "ffn_gate": "gate up",
    "ffn_up": "gate up", "ffn_down": "down", "ffn_gate_exps": "gate up", "ffn_up_exps": "gate up",
    "ffn_down_exps": "down",
}  # fmt: skip


def _part(name: str, layers: int) -> str:
    words = name.split(".")
    if words[0] != "blk" or len(words) < 3:
        return words[0]
    layer = f"layer {words[1]}"
    if layers > 24:
        return layer
    kind = _KINDS.get(words[2], "rest")
    if layers > 8:
        kind = "attention" if kind in ("q k", "v o") else "feed-forward"
    return f"{layer} {kind}"
