"""A scatter of named series over two axes, the vertical one logarithmic: SVG written by hand, no library needed."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Series = Mapping[str, Sequence[tuple[float, float, str]]]  # name → (x, y above 0, label)

COLOURS = ("#6b757d", "#b3541e", "#2c5f8a", "#7a4f8f", "#1f7a5c", "#a8323e", "#8a7a1f")
INK, FAINT, GRID = "#20262b", "#6b757d", "#e3e7ea"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 70, 150, 46, 52


def scatter(series: Series, title: str, across: str, up: str, line: tuple[float, str] | None = None) -> str:
    """One marker a point, its label beside it. line: a height to mark, and what it is."""
    points = [point for some in series.values() for point in some]
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points] + ([line[0]] if line else [])
    left, right = math.floor(2 * min(xs)) / 2, math.ceil(2 * max(xs)) / 2 + 0.5 * (min(xs) == max(xs))
    low, high = math.log10(min(ys)) - 0.1, math.log10(max(ys)) + 0.1

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, TOP + (high - math.log10(y)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_words(LEFT, 24, title, size=15, weight="bold")]
    for half in range(round(2 * left), round(2 * right) + 1):
        x, _ = place(half / 2, 10**low)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM), _words(x, HEIGHT - BOTTOM + 18, f"{half / 2:g}", anchor="middle")]
    for y in _ticks(low, high):
        _, at = place(left, y)
        parts += [_line(LEFT, at, WIDTH - RIGHT, at), _words(LEFT - 8, at + 4, f"{y:g}", anchor="end")]
    parts.append(_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, across, anchor="middle"))
    parts.append(f'<g transform="rotate(-90 18 {HEIGHT / 2})">{_words(18, HEIGHT / 2, up, anchor="middle")}</g>')
    if line is not None:
        _, at = place(left, line[0])
        parts += [_line(LEFT, at, WIDTH - RIGHT, at, INK), _words(WIDTH - RIGHT + 6, at + 4, line[1])]
    for i, (name, some) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        for x, y, words in some:
            cx, cy = place(x, y)
            parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{colour}" fill-opacity="0.85"/>')
            parts.append(_words(cx + 8, cy + 4, words, size=10, fill=FAINT))
        top = TOP + 20 * i + 8
        parts.append(f'<circle cx="{WIDTH - RIGHT + 24}" cy="{top}" r="5" fill="{colour}"/>')
        parts.append(_words(WIDTH - RIGHT + 34, top + 4, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return "\n".join([f'{head} font-family="system-ui, sans-serif">', back, *parts, "</svg>"]) + "\n"


def _ticks(low: float, high: float) -> list[float]:
    marks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    return [m for m in marks if low <= math.log10(m) <= high]


def _words(
    x: float, y: float, words: str, size: int = 12, anchor: str = "start", weight: str = "normal", fill: str = INK
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{fill}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
