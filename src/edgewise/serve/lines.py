"""Lines over two linear axes of percentages: SVG written by hand."""

from collections.abc import Mapping, Sequence
from html import escape

from edgewise.serve.drawing import COLOURS, HEIGHT, LEFT, TOP, WIDTH


def lines(series: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str, up: str) -> str:
    """series: name → points (x, y), both shares between 0 and 1."""
    width, height = WIDTH - LEFT - 150, HEIGHT - TOP - 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="14" y="{TOP + height / 2}" transform="rotate(-90 14 {TOP + height / 2})" text-anchor="middle">'
        f"{escape(up)}</text>",
    ]
    for quarter in range(5):
        x, y = LEFT + width * quarter / 4, TOP + height * (1 - quarter / 4)
        parts.append(f'<path d="M{LEFT} {y:.1f}h{width}M{x:.1f} {TOP}v{height}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{quarter / 4:.0%}</text>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + height + 16}" text-anchor="middle">{quarter / 4:.0%}</text>')
    for number, (name, some) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{LEFT + x * width:.1f},{TOP + (1 - y) * height:.1f}" for x, y in some)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        at = f'x="{LEFT + width + 10}" y="{TOP + 16 + 16 * number}"'
        parts.append(f'<text {at} fill="{colour}">{escape(name)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
