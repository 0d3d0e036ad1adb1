"""How an engine in a child process talks to the benchmark: an order in words a line in, a JSON object a line out.

Standard library only: this runs in every peer's own environment. After loading, the child prints {"ready": true, ...}.
An order is `OP TOKENS BATCH SEED`; the answer is {"seconds", "peak_rss_bytes"} or {"failed": why}. The operations:

prefill  one prompt of TOKENS random tokens into an empty cache, until its last token's logits are there
decode   TOKENS steps of BATCH sequences from an empty cache (or a cache of one token, where the engine must sample)
verify   BATCH times a step of TOKENS rows of one sequence with logits for all, after PAST cached tokens
first    a prompt of TOKENS tokens, until its first new token is known
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PAST = 128
SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="longest sequence")
    parser.add_argument("--batch", type=int, required=True, help="most sequences at once")
    parser.add_argument("--vocab", type=int, required=True)
    return parser.parse_args()


def serve(load: Callable[[argparse.Namespace], Any]) -> None:
    """Loads the engine, says what it is (`engine.about`), then answers orders until standard input ends."""
    die_with_parent()
    out = os.fdopen(os.dup(1), "w")  # ours alone: libraries print to file descriptor 1
    os.dup2(2, 1)
    engine = load(options())
    print(json.dumps({"ready": True, **engine.about}), file=out, flush=True)
    for line in sys.stdin:
        op, *numbers = line.split()
        answer: dict[str, Any]
        try:
            run = getattr(engine, op, None)
            if run is None:
                raise NotImplementedError(f"this engine's interface has no way to measure '{op}'")
            answer = {"seconds": run(*map(int, numbers)), "peak_rss_bytes": peak_rss_bytes()}
        except Exception as error:  # the next test may work; whoever asked prints the reason
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


def random_ids(seed: int, count: int, vocab: int) -> list[int]:
    """A linear congruential generator: the same tokens in every environment. Stays clear of special tokens."""
    state, ids = seed * 7919 + 1, []
    edge = min(300, vocab // 8)
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append(edge + (state >> 33) % (vocab - 2 * edge))
    return ids


def peak_rss_bytes() -> int:
    """VmHWM, not ru_maxrss: the latter keeps what the parent held before it started this program."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def die_with_parent() -> None:
    """A child that waits stopped never sees its input end; Linux can end it with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
