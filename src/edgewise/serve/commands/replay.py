"""`edgewise replay`: which share of the experts each residency would have had at hand, for any room, from a trace."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from edgewise.base import BadInput
from edgewise.serve.lines import lines
from edgewise.serve.options import Json, read_text, table
from edgewise.weights.replay import Access, belady, entropy, hit_rate, uniform
from edgewise.weights.residency import FOR_LAYERS, RESIDENCIES

ROOM = ("share", "slots")
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


def command(
    trace: Annotated[Path, typer.Argument(help="what `edgewise trace routing` wrote")],
    svg: Annotated[Path | None, typer.Option("--svg", help="draw hit rate over room as an SVG file")] = None,
    as_json: Json = False,
) -> None:
    """Hit rates by share of the experts that fit, beside Belady's optimum, random routing, and the share itself."""
    experts, layers, accesses, probabilities = load(trace)
    count = experts * layers
    members = [name for name in RESIDENCIES if name != FOR_LAYERS and RESIDENCIES.load(name).keeps]
    made = uniform(accesses, experts)
    rows = []
    for share in SHARES:
        slots = max(1, round(share * count))
        row: dict[str, float] = {"share": share, "slots": slots}
        for name in members:
            firsts = [access[0] // experts * experts for access in accesses]
            row[name] = hit_rate(accesses, slots, RESIDENCIES.build(name, count=count), probabilities, firsts)
        row["belady"] = belady(accesses, slots)
        for name in members[:1]:
            row[f"{name}, random routing"] = hit_rate(made, slots, RESIDENCIES.build(name, count=count))
        rows.append(row)
    bits = entropy(accesses, experts)
    if svg is not None:
        series = {name: [(row["share"], row[name]) for row in rows] for name in rows[0] if name not in ROOM}
        part = svg.with_name(svg.name + ".part")
        part.write_text(lines(series, "Experts at hand", "room, of all experts", "hit rate"), encoding="utf-8")
        part.replace(svg)
    if as_json:
        print(json.dumps({"entropy_bits": bits, "most_bits": math.log2(experts), "rows": rows}, indent=1))
        return
    names = [name for name in rows[0] if name not in ROOM]
    body = [[f"{row['share']:.1%}", str(row["slots"]), *(f"{row[name]:.1%}" for name in names)] for row in rows]
    print(table([["room", "slots", *names], *body], set(range(len(names) + 2))))
    print(f"entropy of a layer's choices: {bits:.2f} bits of {math.log2(experts):.2f} (random routing)")


def load(path: Path) -> tuple[int, int, list[Access], list[list[float]]]:
    """(experts, layers, accesses in order, each layer's probabilities then). Raises BadInput."""
    written = read_text(path).splitlines()
    try:
        head = json.loads(written[0])
        experts, layers = int(head["experts"]), int(head["layers"])
        accesses: list[Access] = []
        shares: list[list[float]] = []
        for line in written[1:]:
            for layer, (chosen, probabilities) in json.loads(line)["layers"].items():
                if not 0 <= int(layer) < layers or not all(0 <= e < experts for e in chosen):
                    raise ValueError(f"layer {layer} or an expert is out of range")
                accesses.append([int(layer) * experts + int(expert) for expert in chosen])
                row = [0.0] * experts
                for expert, p in zip(chosen, probabilities, strict=True):
                    row[expert] = float(p)
                shares.append(row)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as problem:
        raise BadInput(f"{path} is no trace of routing ({problem}). `edgewise trace routing` writes one.") from None
    if not accesses:
        raise BadInput(f"{path} holds no tokens.")
    return experts, layers, accesses, shares
