"""The reliability rows of a server and its engine, each at a small size (a test) and at full size (`scripts/soak`).

A row is a function `(small, seed) -> Found`: it does what its row of the plan says, counts what went wrong, and says
what it measured. Durations are judged at full size only: a test must not depend on how busy its machine is.
"""

from collections.abc import Callable
from typing import NamedTuple


class Found(NamedTuple):
    """n: tries. fail: of them. got: what was measured, in words. ok: whether that is what was asked."""

    n: int
    fail: int
    got: str
    ok: bool


Row = Callable[[bool, int], Found]

ASKED = {
    "R05": "every bomb is refused or done within 1 s of CPU and 64 MB; /health P99 ≤ 100 ms meanwhile",
    "R06": "no 5xx, no death, errors in the dialect's own form: random and hand-made bodies",
    "R08": "requests beside a poisoned one, and after it: bits equal to those without",
    "R09": "a reset in any of 4 states frees the pages within 1 step (and 100 ms, P99); nothing leaks",
    "R10": "SIGTERM: accepted requests lost 0, new ones 503, exit 0; a second signal ends it within 1 s",
    "R11": "kill -9 while loading, serving, converting, swapping, keeping: restart works, wrong tokens 0, bytes left 0",
    "R12": "each k-th call of the disk fails (EIO, ENOSPC, short, stale, flipped): wrong tokens 0, exits 0",
    "R13": "memory capped at what it has + 10 %: kills 0, tokens unchanged, refusals only 429 or 503, goodput ≥ 90 %",
    "R14": "stalled readers, slowloris: ≤ 64 KiB each, dropped in time, others served; handles run out and return",
    "R15": "every request of a chaotic load ends exactly once, in time; the watchdog trips when it should",
    "R16": "memory per unique request: upper 95 % of the slope ≤ 1 KiB; handles and threads: none",
    "R17": "usage counts equal an independent recount: 100 %",
    "R18": "clients of several models, room for one: deadlocks 0, double loads 0, waits bounded",
    "R19": "greedy tokens and logits bit-equal for any batch, chunk, page size, threads, neighbours",
    "R21": "pieces of a streamed text put together = the whole text decoded, whatever the tokens and the cut",
    "R22": "context −1, 0, +1, ×10: served or 400 with both numbers; nothing cut; finish_reason right",
    "R23": "NaN and Inf in weights: an error, no token after it, the next request bit-equal to a fresh server's",
    "R24": "stateful steps on the KV allocator: violations 0; every seeded bug caught",
}
