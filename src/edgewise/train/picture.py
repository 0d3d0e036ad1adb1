"""A line picture as SVG, written by hand: no library, the same bytes each time."""

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BELOW = 640, 320, 56, 40
COLOURS = (
    "#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#0891b2", "#65a30d", "#be185d", "#4b5563", "#78350f",
)  # fmt: skip


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, across: str, up: str) -> str:
    """One polyline a name, over linear axes that begin and end with the data. Without points: an empty frame."""
    points = [point for line in lines.values() for point in line]
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    low, high, first, last = min(ys), max(ys), min(xs), max(xs)
    wide, tall = WIDTH - LEFT - 16, HEIGHT - BELOW - 16

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * (x - first) / ((last - first) or 1), 16 + tall * (high - y) / ((high - low) or 1)

    parts = [f'<rect x="{LEFT}" y="16" width="{wide}" height="{tall}" fill="none" stroke="#888"/>']
    for value in (low, (low + high) / 2, high):
        y = place(first, value)[1]
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for value in (first, last):
        x = place(value, low)[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BELOW + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text x="12" y="{16 + tall / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 12 {16 + tall / 2})">{escape(up)}</text>')  # fmt: skip
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - 24}" y="{34 + 16 * number}" text-anchor="end" fill="{colour}">'
                     f"{escape(name)}</text>")  # fmt: skip
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
            f"{body}\n</svg>\n")  # fmt: skip


def held_out_losses(runs: Path) -> str:
    """The held-out loss of every run below a folder (those with a log.csv), over its steps."""
    lines = {}
    for log in sorted(runs.glob("*/log.csv")):
        with log.open(newline="") as file:
            lines[log.parent.name] = [(float(row["step"]), float(row["held_out_loss"])) for row in csv.DictReader(file)]
    return curves(lines, across="step", up="held out, nats per token")
