"""Bars of speed beside edgewise in the same pair, a panel a test: as SVG, written by hand, or by matplotlib.

Tokens per second would put runs into one picture that the machine ran at different clocks: a peer's best minute beside
our worst. Pairs ran together, so their ratios are drawn, and tokens per second only written beside.
"""

import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from race.children import Failed

Json = dict[str, Any]
Bar = tuple[str, float, float, float, str]  # engine and format; its speed over edgewise's: median, least, most; tok/s
Panel = tuple[str, list[Bar]]
OURS, OTHERS, INK, FAINT = "#1f7a5c", "#a9b4bd", "#20262b", "#6b757d"
LABEL, BARS, VALUE, GAP, BAR, TOP = 160, 170, 130, 20, 20, 30  # pixels


def draw(run: Json, path: Path) -> None:
    """Raises Failed when the format needs matplotlib and there is none."""
    races = [(f"{race['title']}: speed over that of edgewise beside it", panels(race)) for race in run["races"]]
    races = [(title, some) for title, some in races if some]
    if path.suffix.lower() == ".svg":
        path.write_text(svg(races), encoding="utf-8")
    else:
        with_matplotlib(races, path)


def panels(race: Json) -> list[Panel]:
    """edgewise's bar is 1; its tok/s are the least and most of the medians against each peer."""
    found: dict[str, list[Bar]] = {}
    own: dict[str, list[float]] = {}
    speeds = [row for row in race["results"] if row["kind"] == "speed"]
    for row in speeds:
        own.setdefault(row["test"], []).append(row["ours"]["tok_s"]["median"])
        shares = [1 / pair["ratio"] for pair in row["pairs"]]
        name, rate = f"{row['peer']} {row['theirs']['format']}", short(row["theirs"]["tok_s"]["median"])
        bar = (name, statistics.median(shares), min(shares), max(shares), f"{rate} tok/s")
        found.setdefault(row["test"], []).append(bar)
    first = f"edgewise {speeds[0]['ours']['format']}" if speeds else ""
    return [(test, [(first, 1.0, 1.0, 1.0, f"{rates(own[test])} tok/s"), *bars]) for test, bars in found.items()]


def rates(medians: Sequence[float]) -> str:
    least, most = short(min(medians)), short(max(medians))
    return least if least == most else f"{least}–{most}"


def svg(races: Sequence[tuple[str, list[Panel]]]) -> str:
    width = GAP + max((len(some) for _, some in races), default=1) * (LABEL + BARS + VALUE + GAP)
    parts: list[str] = []
    y = GAP
    for title, some in races:
        parts.append(label(GAP, y + 14, title, size=15, weight="bold"))
        y += TOP
        for i, (test, bars) in enumerate(some):
            parts += panel(GAP + i * (LABEL + BARS + VALUE + GAP), y, test, bars)
        y += TOP + max(len(bars) for _, bars in some) * (BAR + 6) + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}"'
    style = ' font-family="system-ui, sans-serif">'
    return "\n".join([head + style, f'<rect width="{width}" height="{y}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def panel(x: int, y: int, test: str, bars: list[Bar]) -> list[str]:
    parts = [label(x, y + 14, test, size=13, weight="bold")]
    scale = BARS / max(most for _, _, _, most, _ in bars)
    for i, (name, median, least, most, rate) in enumerate(bars):
        top, middle = y + TOP - 6 + i * (BAR + 6), y + TOP - 6 + i * (BAR + 6) + BAR / 2
        left = x + LABEL
        parts.append(label(left - 8, middle + 4, name, anchor="end", weight="bold" if i == 0 else "normal"))
        colour = OURS if i == 0 else OTHERS
        parts.append(f'<rect x="{left}" y="{top}" width="{median * scale:.1f}" height="{BAR}" fill="{colour}"/>')
        span = f'x1="{left + least * scale:.1f}" x2="{left + most * scale:.1f}" y1="{middle}" y2="{middle}"'
        parts.append(f'<line {span} stroke="{INK}" stroke-width="1.5"/>')
        parts.append(label(left + most * scale + 6, middle + 4, f"{median:.2f} · {rate}", fill=FAINT))
    return parts


def label(
    x: float, y: float, words: str, size: int = 12, anchor: str = "start", weight: str = "normal", fill: str = INK
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{fill}">{escape(words)}</text>'


def short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def with_matplotlib(races: Sequence[tuple[str, list[Panel]]], path: Path) -> None:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise Failed(f"{path.suffix} pictures need matplotlib; install it, or ask for an .svg file") from None
    columns = max((len(some) for _, some in races), default=1)
    figure, grid = pyplot.subplots(
        max(1, len(races)), columns, figsize=(5 * columns, 0.8 + 2.4 * len(races)), squeeze=False
    )
    for (title, some), line in zip(races, grid, strict=False):
        for axes in line[len(some) :]:
            axes.set_visible(False)
        for (test, bars), axes in zip(some, line, strict=False):
            shares = [median for _, median, _, _, _ in bars]
            errors = [[m - least for _, m, least, _, _ in bars], [most - m for _, m, _, most, _ in bars]]
            colours = [OURS, *[OTHERS] * (len(bars) - 1)]
            drawn = axes.barh([name for name, *_ in bars], shares, xerr=errors, color=colours, ecolor=INK)
            axes.bar_label(drawn, [f"{bar[1]:.2f} · {bar[4]}" for bar in bars], padding=6, color=FAINT)
            axes.invert_yaxis()
            axes.margins(x=0.4)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{title}\n{test}", loc="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
