"""`edgewise bench layers`: a dense model whose layers pass through K slots, with reading made as slow as computing.

Paper:  Shen et al., SE-MoE, arXiv 2205.10034 (ring of K slots over N layers); TPI-LLM, arXiv 2410.00531
Exact.  The last hidden states of all rings are compared bit by bit.
Needs:  a dense model that fits in memory (for the baselines; a ring needs K layers of it)
Cost:   a pass for each K and round
Status: kept
"""

import json
import statistics
import time
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import BadInput
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, human, table

SETTLE = 3  # passes that set the speed of reading


def measure_layers(
    model: Annotated[str, typer.Argument(help="a dense model: folder, GGUF file, or user/repo; best laid out")],
    rings: Annotated[str, typer.Option("--k", help="slots of each ring, by commas; 1 is serial")] = "1,2,3,4",
    rows: Annotated[int, typer.Option("--rows", min=1, help="tokens of a pass")] = 32,
    pairs: Annotated[int, typer.Option(min=1, help="rounds; every ring passes once in each")] = 5,
    speed: Annotated[
        float, typer.Option("--disk", help="bytes/s of the emulated disk; 0: as fast as a layer computes")
    ] = 0.0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Seconds of a pass by slots, beside computing alone and reading alone; memory of the slots."""
    from edgewise.serve.llm import LLM

    asked = [int(text) for text in rings.split(",")]
    with LLM(locate(model), ram_budget="auto", ctx_size=max(64, rows), threads=threads, max_num_seqs=1,
             prefill_chunk=max(16, rows)) as llm:  # fmt: skip
        parts = llm.parts
        stream = parts.stream
        if stream is None or stream.layers:
            raise BadInput("A ring is measured on a dense model: experts come one by one, not layer by layer.")
        count, tokens = len(stream.running.stored), [7 + at % 50 for at in range(rows)]
        if not all(0 < k <= count for k in asked):
            raise BadInput(f"--k must be between 1 and the model's {count} layers, not {rings}.")
        total = sum(stored.bundle.nbytes for stored in stream.running.stored)

        def through(k: int, source: str) -> None:
            stream.running.drop_all()
            stream.close()
            stream.source = source
            stream.open(slots=k)

        def once() -> tuple[float, Any]:
            begin = time.perf_counter()
            states = np.concatenate(list(parts.runner.states(tokens, rows)))  # without the head, which always stays
            return time.perf_counter() - begin, states

        through(count, "file")
        wanted = once()[1]
        alone = [once()[0] for _ in range(SETTLE)]
        rate = speed or total / statistics.median(alone)
        slow = f"slow:bytes_per_s={rate}"
        took: dict[int, list[float]] = {k: [] for k in asked}
        slots: dict[int, int] = {}
        equal = True
        for turn in range(pairs):
            for k in asked if turn % 2 == 0 else asked[::-1]:
                through(k, slow)
                once()  # whatever stays is here
                seconds, states = once()
                took[k].append(seconds)
                slots[k] = stream.running.slots.count * stream.running.slots.nbytes
                equal = equal and np.array_equal(states, wanted)
        through(count, "file")
        once()
        alone += [once()[0] for _ in range(SETTLE)]  # before and after: the machine may have changed its speed
    computed = statistics.median(alone)
    rows_of = []
    for k in asked:
        seconds = statistics.median(took[k])
        rows_of.append({
            "k": k, "seconds": seconds, "of_serial": seconds / statistics.median(took[asked[0]]),
            "read_s": (count - k + 1 if 1 < k < count else count if k == 1 else 0) * total / count / rate,
            "slots_bytes": slots[k], "share_bytes": total * k // count,
        })  # fmt: skip
    facts = {"layers": count, "rows": rows_of, "computing_s": computed, "disk_bytes_s": rate, "equal": equal}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    body = [
        [str(r["k"]), f"{r['seconds']:.3f}", f"{r['of_serial']:.2f}", f"{r['read_s']:.3f}", human(r["slots_bytes"]),
         human(r["share_bytes"])] for r in rows_of
    ]  # fmt: skip
    head = ["slots", "s/pass", f"of K={asked[0]}", "reading s", "memory", "K/N of layers"]
    print(table([head, *body], set(range(6))))
    print(
        f"{count} layers, {human(total)}, {rows} tokens a pass; computing alone {computed:.3f} s; disk "
        f"{rate / 1e9:.2f} GB/s{'' if speed else ', set so that a layer is read while one is computed'}; medians of "
        f"{pairs}; {'the same states in all' if equal else 'DIFFERENT states: please report it'}"
    )
