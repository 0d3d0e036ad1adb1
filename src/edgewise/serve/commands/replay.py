"""`edgewise replay`: which share of the experts each residency would have had at hand, for any room, from a trace."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from edgewise.base import BadInput
from edgewise.serve.lines import lines
from edgewise.serve.options import Json, read_text, table
from edgewise.weights.guessing import Recall, recall
from edgewise.weights.replay import Access, belady, entropy, hit_rate, uniform
from edgewise.weights.residency import FOR_LAYERS, FOR_NEURONS, RESIDENCIES

ROOM = ("share", "slots")
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


@dataclass
class Trace:
    """accesses: what a layer asked for at once. shares: the router's probabilities then. chosen, guessed: by token,
    layer → experts; a guess is what a layer said of the next one."""

    experts: int
    layers: int
    accesses: list[Access] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    chosen: list[dict[int, list[int]]] = field(default_factory=list)
    guessed: list[dict[int, list[int]]] = field(default_factory=list)

    def hits(self, name: str, slots: int) -> float:
        """Of a residency of the catalog."""
        firsts = [access[0] // self.experts * self.experts for access in self.accesses]
        member = RESIDENCIES.build(name, count=self.experts * self.layers)
        return hit_rate(self.accesses, slots, member, self.shares, firsts)

    def recall(self, most: int) -> Recall | None:
        return recall(self.chosen, self.guessed, self.experts, most)


def command(
    trace: Annotated[Path, typer.Argument(help="what `edgewise trace routing` wrote")],
    svg: Annotated[Path | None, typer.Option("--svg", help="draw hit rate over room as an SVG file")] = None,
    most: Annotated[int, typer.Option("--guess", min=1, help="experts of the next layer that are guessed")] = 2,
    as_json: Json = False,
) -> None:
    """Hit rates by share of the experts that fit, beside Belady's optimum, random routing, and the share itself."""
    walk = load(trace)
    experts, accesses = walk.experts, walk.accesses
    count = experts * walk.layers
    members = [name for name in RESIDENCIES if name not in (FOR_LAYERS, FOR_NEURONS) and RESIDENCIES.load(name).keeps]
    made = uniform(accesses, experts)
    rows = []
    for share in SHARES:
        slots = max(1, round(share * count))
        row: dict[str, float] = {"share": share, "slots": slots}
        for name in members:
            row[name] = walk.hits(name, slots)
        row["belady"] = belady(accesses, slots)
        for name in members[:1]:
            row[f"{name}, random routing"] = hit_rate(made, slots, RESIDENCIES.build(name, count=count))
        rows.append(row)
    bits, guesses = entropy(accesses, experts), walk.recall(most)
    if svg is not None:
        series = {name: [(row["share"], row[name]) for row in rows] for name in rows[0] if name not in ROOM}
        part = svg.with_name(svg.name + ".part")
        part.write_text(lines(series, "Experts at hand", "room, of all experts", "hit rate"), encoding="utf-8")
        part.replace(svg)
    if as_json:
        found = {"entropy_bits": bits, "most_bits": math.log2(experts), "rows": rows}
        print(json.dumps({**found, "guesses": None if guesses is None else asdict(guesses)}, indent=1))
        return
    names = [name for name in rows[0] if name not in ROOM]
    body = [[f"{row['share']:.1%}", str(row["slots"]), *(f"{row[name]:.1%}" for name in names)] for row in rows]
    print(table([["room", "slots", *names], *body], set(range(len(names) + 2))))
    print(f"entropy of a layer's choices: {bits:.2f} bits of {math.log2(experts):.2f} (random routing)")
    if guesses is not None:
        print(
            f"recall@{most} of the next layer's router asked early: {guesses.lookahead:.2f}; shuffled "
            f"{guesses.shuffled:.2f}, the token before {guesses.previous:.2f}, chance {guesses.chance:.2f}"
        )


def load(path: Path) -> Trace:
    """Raises BadInput."""
    written = read_text(path).splitlines()
    try:
        head = json.loads(written[0])
        trace = Trace(int(head["experts"]), int(head["layers"]))
        for line in written[1:]:
            trace.chosen.append({})
            trace.guessed.append({})
            for text, (chosen, probabilities, *more) in json.loads(line)["layers"].items():
                layer = int(text)
                if not 0 <= layer < trace.layers or not all(0 <= e < trace.experts for e in chosen):
                    raise ValueError(f"layer {layer} or an expert is out of range")
                trace.accesses.append([layer * trace.experts + int(expert) for expert in chosen])
                trace.chosen[-1][layer] = [int(expert) for expert in chosen]
                row = [0.0] * trace.experts
                for expert, p in zip(chosen, probabilities, strict=True):
                    row[expert] = float(p)
                if more:
                    row = [float(p) for p in more[0]]
                trace.shares.append(row)
                if len(more) > 1:
                    trace.guessed[-1][layer] = [int(expert) for expert in more[1]]
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as problem:
        raise BadInput(f"{path} is no trace of routing ({problem}). `edgewise trace routing` writes one.") from None
    if not trace.accesses:
        raise BadInput(f"{path} holds no tokens.")
    return trace
