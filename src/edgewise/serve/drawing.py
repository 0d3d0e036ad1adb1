"""Curves and lines as SVG pictures, with nothing but text."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP = 720, 400, 60, 40
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


def curves(path: Path, named: Mapping[str, Sequence[float]], title: str, unit: str) -> None:
    """Cumulative shares of sorted values, over a logarithmic axis."""
    values = [value for line in named.values() for value in line if value > 0]
    low, high = math.log10(min(values, default=0.1)), math.log10(max(values, default=10.0))
    span = max(high - low, 0.1)
    plot_w, plot_h = WIDTH - LEFT - 20, HEIGHT - TOP - 50

    def x(value: float) -> float:
        return LEFT + (math.log10(max(value, 10**low)) - low) / span * plot_w

    parts = _page(f"{title} ({unit})")
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = TOP + plot_h * (1 - share)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{plot_w}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for power in range(math.floor(low), math.ceil(high) + 1):
        if low <= power <= high:
            at = x(10.0**power)
            parts.append(f'<path d="M{at:.1f} {TOP}v{plot_h}" stroke="#ddd"/>')
            parts.append(f'<text x="{at:.1f}" y="{TOP + plot_h + 16}" text-anchor="middle">{10.0**power:g}</text>')
    for number, (name, line) in enumerate(named.items()):
        colour, count = COLOURS[number % len(COLOURS)], len(line)
        step = max(1, count // 300)
        points = " ".join(
            f"{x(line[at]):.1f},{TOP + plot_h * (1 - (at + 1) / count):.1f}" for at in range(0, count, step)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 15 * number}" fill="{colour}">{escape(name)}</text>')
    _write(path, parts)


def lines(
    path: Path, named: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str, up: str, mark: float
) -> None:
    """Points (x, y) of each name, joined in order; both axes begin at 0. mark: a height to draw a line at; what lies
    above three times that is cut off."""
    top = 3 * mark
    right = max((x for line in named.values() for x, _ in line), default=1.0) or 1.0
    plot_w, plot_h = WIDTH - LEFT - 20, HEIGHT - TOP - 50

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / right * plot_w, TOP + (1 - min(y, top) / top) * plot_h

    parts = _page(f"{title}: {up} over {across}")
    for step in range(5):
        x, y = place(right * step / 4, top * step / 4)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{plot_w}M{x:.1f} {TOP}v{plot_h}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + plot_h + 16}" text-anchor="middle">{right * step / 4:.3g}</text>')
    parts.append(f'<path d="M{LEFT} {place(0, mark)[1]:.1f}h{plot_w}" stroke="#333" stroke-dasharray="4 3"/>')
    for number, (name, line) in enumerate(named.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(line)))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 15 * number}" fill="{colour}">{escape(name)}</text>')
    _write(path, parts)


def _page(title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
    ]


def _write(path: Path, parts: Sequence[str]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
    part.replace(path)
