"""Interleaved runs of two engines: A B, B A, A B, ... with the machine probed before and after each pair."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from race.children import Child
from race.roofs import Probe
from race.subjects import Trial

Start = Callable[[], Child]
Pair = dict[str, Any]
DEPTHS = (1, 2, 4, 8, 16, 32)  # rows of a verify step
WARM_STEPS = 8


def speeds(ours: Child, theirs: Child, test: Trial, pairs: int, probe: Callable[[], Probe]) -> list[Pair]:
    """Tokens per second of both, pair by pair, after a warm-up of each."""
    steps = test.tokens  # of a prefill: engines may compile for a prompt's length
    if test.op == "decode":
        steps = min(WARM_STEPS, steps)
    for child in (ours, theirs):
        child.run(test.op, steps, test.batch)

    def rate(child: Child, i: int) -> dict[str, float]:
        return {"tok_s": test.tokens * test.batch / child.run(test.op, test.tokens, test.batch, i + 1)}

    runs = (lambda i: rate(ours, i), lambda i: rate(theirs, i))
    return interleave(test.name, (ours.name, theirs.name), runs, pairs, probe)


def starts(ours: Start, theirs: Start, tokens: int, pairs: int, probe: Callable[[], Probe]) -> list[Pair]:
    """Seconds from the start of a process to its first new token after `tokens` of prompt, and its peak memory.

    One start of each beforehand brings the files into the page cache.
    """

    def once(start: Start) -> dict[str, float]:
        with start() as child:
            child.run("first", tokens, 1, 1)
            return {"seconds": time.perf_counter() - child.started, "peak_rss_bytes": child.peak_rss_bytes}

    names = []
    for start in (ours, theirs):
        with start() as child:
            child.run("first", tokens, 1, 1)
            names.append(child.name)
    return interleave("first", (names[0], names[1]), (lambda i: once(ours), lambda i: once(theirs)), pairs, probe)


def interleave(
    name: str,
    names: tuple[str, str],
    runs: tuple[Callable[[int], dict[str, float]], Callable[[int], dict[str, float]]],
    pairs: int,
    probe: Callable[[], Probe],
) -> list[Pair]:
    rows: list[Pair] = []
    before = probe()
    for i in range(pairs):
        order = (0, 1) if i % 2 == 0 else (1, 0)
        got = {which: runs[which](i) for which in order}
        after = probe()
        first = next(iter(got[0]))
        ratio = got[0][first] / got[1][first]
        ends = {"before": before.as_json(), "after": after.as_json()}
        rows.append({"ours": got[0], "theirs": got[1], "ratio": ratio, **ends})
        say(
            f"{name} pair {i + 1}/{pairs}: {names[0]} {got[0][first]:.2f}, {names[1]} {got[1][first]:.2f}, "
            f"ratio {ratio:.3f}, {before.all_gb_s:.0f} → {after.all_gb_s:.0f} GB/s"
        )
        before = after
    return rows


def curve(children: Sequence[Child], rounds: int, repeats: int, probe: Callable[[], Probe]) -> list[dict[str, Any]]:
    """Seconds of a step of 1 to 32 rows of one sequence: a list of rounds, each with every engine's list of seconds."""
    for child in children:
        for rows in DEPTHS:
            child.run("verify", rows, 1)
    found = []
    before = probe()
    for i in range(rounds):
        row: dict[str, Any] = {"seconds": {}, "before": before.as_json()}
        for child in children if i % 2 == 0 else children[::-1]:
            row["seconds"][child.name] = [child.run("verify", rows, repeats, i + 1) / repeats for rows in DEPTHS]
        before = probe()
        row["after"] = before.as_json()
        found.append(row)
        shown = ", ".join(f"{name} {times[0] * 1e3:.1f} ms" for name, times in row["seconds"].items())
        say(f"verify round {i + 1}/{rounds}: one row takes {shown}")
    return found


def times(rounds: Sequence[dict[str, Any]], name: str) -> list[dict[str, float]]:
    """T(N) and T(N)/T(1), medians over the rounds, of one engine."""
    lists = [row["seconds"][name] for row in rounds]
    return [
        {
            "rows": rows,
            "seconds": statistics.median(each[i] for each in lists),
            "over_one": statistics.median(each[i] / each[0] for each in lists),
        }
        for i, rows in enumerate(DEPTHS)
    ]


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
