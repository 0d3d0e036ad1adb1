"""`edgewise bench offload`: a text read token by token with some experts at hand, by residency and prefetcher.

Paper:  Eliseev and Mazur 2023, arXiv 2312.17238 (LRU and speculative loading against neither)
Exact.  Every line computes the same logits, which is checked.
Needs:  a mixture of experts that fits in memory for the first line, which computes all of it there
Cost:   a pass over the text for each line and round
Status: kept
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import BadInput
from edgewise.kernels.checksums import xxh64
from edgewise.serve.commands.trace import PROMPT
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, human, read_text, split_members, table
from edgewise.weights.prefetchers import PREFETCHERS
from edgewise.weights.residency import FOR_EXPERTS
from edgewise.weights.store import Counts


def measure_offload(
    model: Annotated[str, typer.Argument(help="a mixture of experts: folder, GGUF file, or user/repo")],
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="of the experts that have a slot")] = 0.25,
    members: Annotated[
        str, typer.Option(help="residency+prefetcher pairs, by commas")
    ] = "none+none,lru+none,lru+lookahead,mrs+none",
    text: Annotated[Path | None, typer.Option("--text", help="a UTF-8 text to read")] = None,
    tokens: Annotated[int, typer.Option("-n", min=2, help="of it")] = 64,
    pairs: Annotated[int, typer.Option(min=1, help="rounds; every line runs once in each")] = 5,
    source: Annotated[str, typer.Option(help="how files are read; slow:bytes_per_s=2e8 is a slow disk")] = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Hits, time that computing waited for reading, bytes read and tokens/s, beside computing with all experts here."""
    from edgewise.serve.llm import LLM

    with LLM(locate(model), ram_budget="auto", ctx_size=max(64, tokens), threads=threads, max_num_seqs=1,
             source=source) as llm:  # fmt: skip
        parts = llm.parts
        stream = parts.stream
        if stream is None or not stream.layers:
            raise BadInput("Offloading is measured on a mixture of experts.")
        words = PROMPT if text is None else read_text(text)
        ids = list(llm.tokenizer.encode(words))[:tokens] if llm.tokenizer is not None else list(range(3, 3 + tokens))
        needs = stream.needs(0, 0)
        slots = max(needs.least, round(share * needs.bundles))
        names = ["all", *split_members(members)]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        sums = set()
        for turn in range(pairs):
            for name in names if turn % 2 == 0 else names[::-1]:
                stays, _, guess = name.partition("+")
                stream.running.drop_all()
                stream.close()
                stream.prefetcher = PREFETCHERS.build(guess or "none")
                stream.residency_name = FOR_EXPERTS if name == "all" else stays
                stream.open(slots=needs.bundles if name == "all" else slots)
                if name == "all":
                    _read(parts, ids)
                row, total = _read(parts, ids)
                found[name].append(row)
                sums.add(total)
    rows: list[dict[str, Any]] = [
        {"name": name, **{key: statistics.median(one[key] for one in runs) for key in runs[0]}}
        for name, runs in found.items()
    ]
    if as_json:
        print(json.dumps({"slots": slots, "bundles": needs.bundles, "rows": rows, "equal": len(sums) == 1}, indent=1))
        return
    head = ["stays + guessed", "tok/s", "hits", "wait ms/token", "read/token"]
    body = [
        [str(row["name"]), f"{row['tok_s']:.1f}", f"{row['hit_rate']:.1%}", f"{1e3 * row['wait_s']:.3f}",
         human(row["bytes_token"])] for row in rows
    ]  # fmt: skip
    print(table([head, *body], {1, 2, 3, 4}))
    same = "the same logits in all" if len(sums) == 1 else "DIFFERENT logits: please report it"
    print(
        f"{slots} of {needs.bundles} experts of {human(needs.slot)} ({slots / needs.bundles:.0%}), {len(ids)} tokens, "
        f"source {stream.source}; {same}; medians of {pairs}"
    )


def _read(parts: Any, ids: list[int]) -> tuple[dict[str, float], int]:
    """One token a pass; what it cost, and a checksum of all logits."""
    store, total = parts.stream.running, 0
    store.counts = Counts()
    parts.device.stalled_s()
    begin = time.perf_counter()
    for logits in parts.runner.score(ids, 1):
        total = hash((total, xxh64(np.ascontiguousarray(logits).view(np.uint8).reshape(-1))))
    took, counts = time.perf_counter() - begin, store.counts
    return {
        "tok_s": len(ids) / took, "hit_rate": counts.hit_rate, "wait_s": parts.device.stalled_s() / len(ids),
        "bytes_token": counts.bytes_read / len(ids),
    }, total  # fmt: skip
