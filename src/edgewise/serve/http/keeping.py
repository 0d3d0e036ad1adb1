"""keep_alive, as Ollama has it: how long a model stays in memory after its last request."""

import math
import re
from typing import Any

from edgewise.serve.http.fields import Fields

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
RULE = 'seconds, or a duration such as "5m"; 0 unloads at once, -1 never'


def seconds(text: str) -> float | None:
    """"5m", "1h30m", "300" → seconds; below 0: for ever. None when it is not a duration."""
    plain = text.strip()
    sign, digits = (-1.0, plain[1:]) if plain.startswith("-") else (1.0, plain.removeprefix("+"))
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", digits):
        return sign * float(digits)
    total, at = 0.0, 0
    while at < len(digits):
        piece = PIECE.match(digits, at)
        if piece is None:
            return None
        total += float(piece[1]) * UNITS[piece[2]]
        at = piece.end()
    return sign * total if at else None


def keep_alive(body: Fields) -> float | None:
    """Seconds; None when nothing was said. Raises ApiError naming the field."""
    value: Any = body.anything("keep_alive")
    if value is None:
        return None
    if isinstance(value, str) and len(value) < 100:
        value = seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise body.wrong("keep_alive", RULE)
    return min(float(value), 1e8)
