"""Curves as an SVG picture, with nothing but text."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP = 720, 400, 60, 40
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


def curves(path: Path, lines: Mapping[str, Sequence[float]], title: str, unit: str) -> None:
    """Cumulative shares of sorted values, over a logarithmic axis."""
    values = [value for line in lines.values() for value in line if value > 0]
    low, high = math.log10(min(values, default=0.1)), math.log10(max(values, default=10.0))
    span = max(high - low, 0.1)
    plot_w, plot_h = WIDTH - LEFT - 20, HEIGHT - TOP - 50

    def x(value: float) -> float:
        return LEFT + (math.log10(max(value, 10**low)) - low) / span * plot_w

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)} ({escape(unit)})</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = TOP + plot_h * (1 - share)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{plot_w}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for power in range(math.floor(low), math.ceil(high) + 1):
        if low <= power <= high:
            at = x(10.0**power)
            parts.append(f'<path d="M{at:.1f} {TOP}v{plot_h}" stroke="#ddd"/>')
            parts.append(f'<text x="{at:.1f}" y="{TOP + plot_h + 16}" text-anchor="middle">{10.0**power:g}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour, count = COLOURS[number % len(COLOURS)], len(line)
        step = max(1, count // 300)
        points = " ".join(
            f"{x(line[at]):.1f},{TOP + plot_h * (1 - (at + 1) / count):.1f}" for at in range(0, count, step)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 15 * number}" fill="{colour}">{escape(name)}</text>')
    parts.append("</svg>")
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(parts) + "\n", encoding="utf-8")
    part.replace(path)
