"""`edgewise plan`: what a model would need and how fast it would be under memory budgets, measured on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.serve.budget import Outlook, outlook, uniform_share
from edgewise.serve.commands.replay import Trace, load
from edgewise.serve.hub import locate
from edgewise.serve.options import CacheType, Context, Json, RamBudget, Source, Threads, human, table
from edgewise.weights.replay import entropy

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)


def command(
    model: Annotated[str, typer.Argument(help="a folder, a GGUF file, or user/repo from the cache")],
    ram_budget: RamBudget = "auto",
    context: Context = None,
    kv_cache_dtype: CacheType = None,
    threads: Threads = None,
    source: Source = "auto",
    trace: Annotated[
        Path | None, typer.Option("--trace", help="what `edgewise trace routing` wrote: hits are replayed from it")
    ] = None,
    as_json: Json = False,
) -> None:
    """Where the memory would go, and tokens per second for this and other budgets. Reads some weights to time that.

    Without a trace every expert counts as equally likely, which real routing beats. Sizes are those of one sequence.
    """
    from edgewise.serve.llm import LLM

    walk = None if trace is None else load(trace)
    with LLM(
        locate(model), ram_budget=ram_budget or "auto", ctx_size=context, kv_cache_dtype=kv_cache_dtype or "auto",
        threads=threads, source=source, max_num_seqs=1,
    ) as llm:  # fmt: skip
        facts = {"model": llm.name, **describe(llm.parts, outlook(llm.parts), walk)}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    memory = facts["memory"]
    print(f"{facts['model']} in {human(facts['budget_bytes'])}: {facts['words']}")
    print(", ".join(f"{name.removesuffix('_bytes')} {human(memory[name])}" for name in memory))
    if facts["entropy_bits"] is not None:
        print(f"entropy of a layer's choices in the trace: {facts['entropy_bits']:.2f} bits")
    head = ["budget", "bundles here", "hits", "tok/s predicted"]
    body = [
        [human(row["budget_bytes"]), f"{row['slots']}", f"{row['hit_rate']:.0%}", f"{row['tok_s']:.1f}"]
        for row in facts["rows"]
    ]
    print(table([head, *body], {0, 1, 2, 3}))


def describe(parts: Any, seen: Outlook, walk: Trace | None) -> dict[str, Any]:
    """Facts of a model that is open under a budget: where memory goes, and a row for each of several budgets."""
    stream = parts.stream
    needs = stream.needs(0, 0)
    # What is there beside the slots: all that the budget was not enough to fill with them.
    fixed = stream.budget_bytes - stream.slots_room
    budgets = {needs.least: fixed + needs.least * needs.slot, seen.slots: seen.budget_bytes}
    for share in SHARES:
        slots = max(needs.least, round(share * needs.bundles))
        budgets.setdefault(slots, fixed + slots * needs.slot)
    rows = []
    for slots, budget in sorted(budgets.items()):
        hits = uniform_share(slots, needs.bundles, bool(stream.layers))
        if walk is not None:
            hits = replayed(stream, walk, slots)
        rows.append({"budget_bytes": budget, "slots": slots, "hit_rate": hits, "tok_s": seen.at(parts, hits)})
    return {
        "budget_bytes": seen.budget_bytes, "words": seen.words(),
        "memory": {
            "process_and_resident_weights_bytes": fixed - needs.kv - needs.working, "kv_bytes": needs.kv,
            "working_bytes": needs.working, "slots_bytes": seen.slots * needs.slot,
            "smallest_bytes": min(budgets.values()),
        },
        "entropy_bits": None if walk is None else entropy(walk.accesses, walk.experts), "rows": rows,
    }  # fmt: skip


def replayed(stream: Any, walk: Trace, slots: int) -> float:
    """Hits of the usual residency in so many slots."""
    if (walk.experts, walk.layers) != (stream.spec.experts, stream.spec.layers):
        raise BadInput(
            f"The trace is of {walk.layers} layers of {walk.experts} experts; this model has {stream.spec.layers} of "
            f"{stream.spec.experts}. Trace this model."
        )
    return walk.hits(stream.usual(slots), slots)
