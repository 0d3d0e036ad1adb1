"""`edgewise bench window`: a dense model whose layers come and go, beside the disk alone and the arithmetic alone.

Paper:  Li et al., TPI-LLM, arXiv 2410.00531 (a sliding window of layers is free while loading hides behind computing)
Exact.  It measures only.
Needs:  a dense model on a real disk, best laid out by `convert --layout streamed`
Cost:   a few dozen tokens
Status: kept
"""

import json
import statistics
import time
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, SamplingParams
from edgewise.base.limits import peak_resident_bytes
from edgewise.models.streaming import parse_size
from edgewise.serve.capping import PROMPT
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, human


def measure_window(
    model: Annotated[str, typer.Argument(help="a dense model")],
    ram_budget: Annotated[str, typer.Option("--ram-budget", help="all memory of the process, e.g. 600MB")],
    pairs: Annotated[int, typer.Option(min=1, help="rounds of each")] = 5,
    tokens: Annotated[int, typer.Option("-n", min=1, help="to write in a round")] = 2,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """A token's time beside that of reading the same layers without computing, in turn; the peak of memory.

    The arithmetic is what a token takes besides waiting for the disk. The ratio is that of the token's time to the
    larger of the two; 1.15 is the aim.
    """
    from edgewise.serve.llm import LLM

    llm = LLM(locate(model), threads=threads, ctx_size=512, max_num_seqs=1, ram_budget=ram_budget)
    stream = llm.parts.stream
    if stream is None or stream.layers:
        raise BadInput(f"{model} is no dense model whose layers come and go.")
    store = stream.running
    pieces = llm.stream(PROMPT, SamplingParams(max_tokens=pairs * tokens + 2, temperature=0.0, ignore_eos=True))
    rounds: list[dict[str, float]] = []
    for _ in range(2):
        next(pieces)  # the prompt, and a token that begins where a round ends
    for _ in range(pairs):
        waited, read, begin = store.counts.waited_s, store.counts.bytes_read, time.perf_counter()
        written = 0
        while written < tokens:
            written += len(next(pieces).token_ids)
        token = (time.perf_counter() - begin) / written
        waited = (store.counts.waited_s - waited) / written
        nbytes = (store.counts.bytes_read - read) / written
        read, begin = store.counts.bytes_read, time.perf_counter()
        for layer in range(llm.parts.spec.layers):
            with stream.turn(layer):
                pass
        disk = (time.perf_counter() - begin) * nbytes / max(1, store.counts.bytes_read - read)
        rounds.append({"token_s": token, "disk_s": disk, "compute_s": token - waited, "bytes": nbytes,
                       "ratio": token / max(disk, token - waited)})  # fmt: skip
    del pieces
    found: dict[str, Any] = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    peak, budget = peak_resident_bytes(), parse_size(ram_budget)
    found |= {"peak_bytes": peak, "budget_bytes": budget, "slots": store.slots.count, "layers": len(store.stored)}
    if as_json:
        print(json.dumps({**found, "rounds": rounds}, indent=1))
        return
    print(f"room for {store.slots.count} of {len(store.stored)} layers of {human(store.slots.nbytes)}")
    print(f"a token {1e3 * found['token_s']:.0f} ms, reading {human(int(found['bytes']))}; the disk alone "
          f"{1e3 * found['disk_s']:.0f} ms ({found['bytes'] / found['disk_s'] / 1e9:.2f} GB/s), the arithmetic "
          f"{1e3 * found['compute_s']:.0f} ms")  # fmt: skip
    print(f"time / max(disk, arithmetic): {found['ratio']:.3f} (median of {pairs}, in turn)")
    verdict = "" if peak <= budget else ": MORE than the budget, please report it"
    print(f"peak memory {human(peak)} of {human(budget)}{verdict}")
