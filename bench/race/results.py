"""From pairs to figures: medians, the ratio pair by pair and by bandwidth state, GB/s, GOPS and the share of the roof.

A run is {"date", "machine", "races": [...], ...}; a race is one model at one number of threads:
{"subject", "threads", "versions", "results", "verify", "failed"}.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from race.peers import Model
from race.roofs import divide, spread, state
from race.rounds import Pair
from race.subjects import Subject, Trial

Json = dict[str, Any]
SIDES = ("ours", "theirs")


def speed_result(
    subject: Subject, test: Trial, models: tuple[Model, Model], arithmetic: str, pairs: list[Pair]
) -> Json:
    """A row about tok/s. models: ours, theirs. arithmetic: the rate that bounds theirs, a field of Probe."""
    row: Json = {"kind": "speed", "test": test.name}
    roofs = [(pair["before"]["gb_s"] + pair["after"]["gb_s"]) / 2 for pair in pairs]
    for side, model, bound in zip(SIDES, models, ("int8_gops", arithmetic), strict=True):
        per_token = model.step_bytes(test) * test.steps / (test.tokens * test.batch) / 1e9  # GB
        rates = [pair[side]["tok_s"] for pair in pairs]
        row[side] = {
            "format": model.format,
            "tok_s": spread(rates),
            "gb_s": statistics.median(rates) * per_token,
            "gops": statistics.median(rates) * subject.operations(test) / 1e9,
            "read_share": statistics.median(rate * per_token / roof for rate, roof in zip(rates, roofs, strict=True)),
            "bound": bound,
        }
    return {**row, "ratio": spread([pair["ratio"] for pair in pairs]), "pairs": pairs}


def start_result(tokens: int, models: tuple[Model, Model], pairs: list[Pair]) -> Json:
    """A row about the time to the first token and peak memory."""
    row: Json = {"kind": "start", "test": f"first{tokens}"}
    for side, model in zip(SIDES, models, strict=True):
        row[side] = {
            "format": model.format,
            "seconds": spread([pair[side]["seconds"] for pair in pairs]),
            "peak_rss_bytes": max(pair[side]["peak_rss_bytes"] for pair in pairs),
        }
    return {**row, "ratio": spread([pair["ratio"] for pair in pairs]), "pairs": pairs}


def finish(run: Json, threshold: float | None = None) -> None:
    """Adds what only all probes together tell: bandwidth states, the machine's peak rates, the shares of the roof.

    threshold: GB/s between the slow and the fast state; None: found in the probes.
    """
    found = divide(probe["all_gb_s"] for race in run["races"] for probe in probes(race))
    run["state_threshold_gb_s"] = threshold or found
    for race in run["races"]:
        race["roofs"] = roofs = peaks(race)
        for row in race["results"]:
            ratios: dict[str, list[float]] = {}
            for pair in row["pairs"]:
                ends = pair["before"]["all_gb_s"], pair["after"]["all_gb_s"]
                pair["state"] = state(*ends, run["state_threshold_gb_s"])
                ratios.setdefault(pair["state"], []).append(pair["ratio"])
            row["by_state"] = {
                name: {"pairs": len(some), "ratio": statistics.median(some)} for name, some in sorted(ratios.items())
            }
            if row["kind"] == "speed":
                for side in SIDES:
                    near_roof(row[side], roofs[row[side]["bound"]])


def near_roof(side: Json, peak: float | None) -> None:
    """A roof is memory or arithmetic, whichever the engine is nearer to."""
    computed = side["gops"] / peak if peak else 0.0
    side["roof"] = "read" if side["read_share"] >= computed else side["bound"].partition("_")[0]
    side["roof_share"] = max(side["read_share"], computed)


def peaks(race: Json) -> Json:
    """The best rates that any probe of the race saw: other work on the machine only lowers them."""
    seen = list(probes(race))
    found: Json = {}
    for name in ("gb_s", "int8_gops", "bf16_gflops"):
        found[name] = max((probe[name] for probe in seen if probe[name] is not None), default=None)
    return found


def probes(race: Json) -> Iterator[Json]:
    groups = [row["pairs"] for row in race["results"]]
    if race["verify"]:
        groups.append(race["verify"]["rounds"])
    for group in groups:
        yield group[0]["before"]
        for pair in group:
            yield pair["after"]
