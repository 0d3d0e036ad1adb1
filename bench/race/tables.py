"""A run as text: plain columns for a terminal, or markdown for the documents. Both have the same sections."""

from collections.abc import Sequence
from typing import Any

from edgewise.serve.options import table as columns

Json = dict[str, Any]
Rows = list[list[str]]


def text(run: Json, markdown: bool) -> str:
    """Every race of the run: its tables, then the pairs with the bandwidth around them, then what failed."""
    table, bullet = (as_markdown, "- ") if markdown else (plain, "  ")
    out = [f"{run['date']}, {run['machine']}.", bandwidth(run)]
    for race in run["races"]:
        title = race["title"]
        out.append(f"### {title}" if markdown else f"{title}\n{'-' * len(title)}")
        out.append(facts(race))
        speeds = [row for row in race["results"] if row["kind"] == "speed"]
        begun = [row for row in race["results"] if row["kind"] == "start"]
        for rows in (speed_rows(speeds), start_rows(begun, race["file_bytes"]), verify_rows(race["verify"])):
            if len(rows) > 1:
                out.append(table(rows))
        if race["results"]:
            out.append("Pair by pair, ratio and GB/s read before → after:")
            out.append("\n".join(bullet + pairs_line(row) for row in race["results"]))
        if race["failed"]:
            out.append("Not measured:")
            out.append("\n".join(f"{bullet}{each['what']}: {each['why']}" for each in race["failed"]))
    return "\n\n".join(out)


def bandwidth(run: Json) -> str:
    threshold = run["state_threshold_gb_s"]
    if threshold is None:
        return "The read bandwidth of two threads stayed in one state."
    return f"Read bandwidth of two threads: slow is below {threshold:.0f} GB/s, fast above."


def facts(race: Json) -> str:
    roofs = race["roofs"]
    rates = [
        f"{roofs[name]:.0f} {unit}"
        for name, unit in (("gb_s", "GB/s"), ("int8_gops", "GOPS int8"), ("bf16_gflops", "GFLOPS bf16"))
        if roofs[name]
    ]
    names = [f"{name} {number}" for versions in race["versions"].values() for name, number in versions.items()]
    share = f"{race['format']}, {race['file_bytes'] / 1e6:.0f} MB."
    return f"{share} Best rates probed: {', '.join(rates) or 'none'}. {', '.join(dict.fromkeys(names))}."


def speed_rows(results: Sequence[Json]) -> Rows:
    head = ["test", "against", "edgewise tok/s", "its tok/s", "ratio", "in states", "GB/s", "GOPS", "of the roof"]
    rows = [head]
    for row in results:
        ours, theirs = row["ours"], row["theirs"]
        rows.append(
            [
                row["test"],
                f"{row['peer']} {theirs['format']}",
                ranged(ours["tok_s"]),
                ranged(theirs["tok_s"]),
                ranged(row["ratio"], 2),
                states(row),
                f"{ours['gb_s']:.1f} / {theirs['gb_s']:.1f}",
                f"{ours['gops']:.0f} / {theirs['gops']:.0f}",
                f"{share(ours)} / {share(theirs)}",
            ]
        )
    return rows


def start_rows(results: Sequence[Json], file_bytes: int) -> Rows:
    rows = [["start to first token", "edgewise s", "its s", "ratio", "peak MiB", "of the file"]]
    for row in results:
        ours, theirs = row["ours"], row["theirs"]
        rows.append(
            [
                f"{row['peer']} {theirs['format']}",
                ranged(ours["seconds"], 2),
                ranged(theirs["seconds"], 2),
                ranged(row["ratio"], 2),
                f"{ours['peak_rss_bytes'] / 2**20:.0f} / {theirs['peak_rss_bytes'] / 2**20:.0f}",
                f"{ours['peak_rss_bytes'] / file_bytes:.2f} / {theirs['peak_rss_bytes'] / file_bytes:.2f}",
            ]
        )
    return rows


def verify_rows(verify: Json | None) -> Rows:
    if not verify:
        return []
    engines = verify["engines"]
    depths = [str(point["rows"]) for point in next(iter(engines.values()))]
    rows = [["T(N)/T(1)", "T(1) ms", *(f"N={depth}" for depth in depths)]]
    for name, points in engines.items():
        ratios = [f"{point['over_one']:.2f}" for point in points]
        rows.append([name, f"{points[0]['seconds'] * 1e3:.2f}", *ratios])
    return rows


def pairs_line(row: Json) -> str:
    each = []
    for pair in row["pairs"]:
        before, after = pair["before"]["all_gb_s"], pair["after"]["all_gb_s"]
        each.append(f"{pair['ratio']:.2f} ({before:.0f} → {after:.0f})")
    return f"{row['test']} {row['peer']}: {', '.join(each)}"


def states(row: Json) -> str:
    """The median ratio of the pairs in each state, and how many there were: `slow 1.14 (4), fast 1.60 (3)`."""
    if list(row["by_state"]) == ["steady"]:
        return "one"
    return ", ".join(f"{name} {some['ratio']:.2f} ({some['pairs']})" for name, some in row["by_state"].items())


def ranged(spread: Json, digits: int = 1) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}–{spread['max']:.{digits}f})"


def share(side: Json) -> str:
    return f"{side['roof_share']:.0%} {side['roof']}"


def plain(rows: Rows) -> str:
    return columns(rows)


def as_markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
