"""Who asks for what, when: generated, or read from a trace in Azure's format. Lengths only; the texts are random."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.base.catalog import nearest
from edgewise.engine.api import StepCost

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True)
class Arrival:
    """One request of a load."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


Tokens = npt.NDArray[np.int64]
Lengths = Callable[[np.random.Generator, int], tuple[Tokens, Tokens]]


def _bimodal(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Nine short requests for each long one: (16, 16) and (256, 384) tokens."""
    long = numbers.random(count) < 0.1
    return np.where(long, 256, 16), np.where(long, 384, 16)


def _lognormal(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Prompts from 16 to 4096, median 256; outputs of median 64."""
    prompts = np.clip(np.exp(numbers.normal(math.log(256), 1.2, count)), 16, 4096)
    outputs = np.clip(np.exp(numbers.normal(math.log(64), 0.8, count)), 4, 512)
    return prompts.astype(int), outputs.astype(int)


def _plain(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Geometric lengths, means 128 and 64."""
    return numbers.geometric(1 / 128, count), numbers.geometric(1 / 64, count)


def _prefill_heavy(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Long prompts of all sizes and few tokens out: what code completion asks for."""
    prompts = np.clip(np.exp(numbers.normal(math.log(300), 1.0, count)), 16, 2048)
    return prompts.astype(int), numbers.geometric(1 / 8, count)


def _equal(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Everybody wants the same: the control."""
    return np.full(count, 64), np.full(count, 64)


def _reasoning(numbers: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
    """Short questions; one answer in ten thinks six times as long as the others."""
    outputs = np.exp(numbers.normal(math.log(96), 0.5, count)) * np.where(numbers.random(count) < 0.1, 6, 1)
    prompts = np.clip(np.exp(numbers.normal(math.log(48), 0.4, count)), 8, 256)
    return prompts.astype(int), np.clip(outputs, 8, 1024).astype(int)


# name → (lengths, shape of the Gamma-distributed gaps: 1 is Poisson, less is burstier)
GENERATED: dict[str, tuple[Lengths, float]] = {
    "bimodal": (_bimodal, 1.0),
    "poisson": (_plain, 1.0),
    "gamma": (_plain, 0.5),
    "lognormal": (_lognormal, 1.0),
    "prefill-heavy": (_prefill_heavy, 1.0),
    "equal": (_equal, 1.0),
    "reasoning": (_reasoning, 0.5),
}


def load(name: str, count: int, scale: float = 1.0, seed: int = 0) -> list[Arrival]:
    """A generated load by name, or the first `count` rows of a CSV file. Lengths are divided by `scale` (at least 1).
    Generated gaps have mean 1 s; `at_rate` sets the pace."""
    if count < 1 or scale <= 0:
        raise BadInput(f"A load needs at least one request and a scale above 0, not {count} and {scale}.")
    if name not in GENERATED:
        if not Path(name).is_file():
            raise BadInput(f"There is no trace file and no load '{name}'.{nearest(name, list(GENERATED))}")
        return [_scaled(arrival, scale) for arrival in read_trace(Path(name), count)]
    lengths, shape = GENERATED[name]
    numbers = np.random.default_rng(seed)
    prompts, outputs = lengths(numbers, count)
    times = np.cumsum(numbers.gamma(shape, 1 / shape, count))
    rows = zip((times - times[0]).tolist(), prompts.tolist(), outputs.tolist(), strict=True)
    fixed = scale if name not in ("bimodal",) else 1.0  # its sizes are given in tokens
    return [_scaled(Arrival(*row), fixed) for row in rows]


def _scaled(arrival: Arrival, scale: float) -> Arrival:
    return replace(
        arrival,
        prompt_tokens=max(1, round(arrival.prompt_tokens / scale)),
        output_tokens=max(1, round(arrival.output_tokens / scale)),
    )


def read_trace(path: Path, count: int) -> list[Arrival]:
    """Azure's columns. Raises BadInput naming the line."""
    found: list[Arrival] = []
    first: datetime | None = None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise BadInput(f"{path} has the columns {rows.fieldnames}, but a trace needs {', '.join(COLUMNS)}.")
            for row in rows:
                try:
                    whole, _, part = row["TIMESTAMP"].partition(".")
                    time = datetime.fromisoformat(f"{whole}.{(part + '000000')[:6]}")
                    sizes = int(row["ContextTokens"]), int(row["GeneratedTokens"])
                except (ValueError, TypeError, AttributeError) as error:
                    raise BadInput(f"{path}, line {rows.line_num}: {error}.") from None
                first = first or time
                found.append(Arrival((time - first).total_seconds(), *sizes))
                if len(found) == count:
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a trace: {error}.") from None
    if not found:
        raise BadInput(f"{path} holds no requests.")
    return sorted(found, key=lambda arrival: arrival.at_s)


def gaps(arrivals: Sequence[Arrival], kind: str, seed: int = 0) -> list[Arrival]:
    """The same requests with other gaps: `trace` leaves them, `poisson`, or `gamma:SHAPE` (1 is Poisson)."""
    if kind == "trace":
        return list(arrivals)
    name, _, tail = kind.partition(":")
    try:
        shape = 1.0 if name == "poisson" else float(tail or 0.5)
    except ValueError:
        shape = 0.0
    if name not in ("poisson", "gamma") or shape <= 0:
        raise BadInput(f"Arrivals are '{kind}' but must be trace, poisson, or gamma:SHAPE with a shape above 0.")
    times = np.cumsum(np.random.default_rng((seed, 1)).gamma(shape, 1 / shape, len(arrivals))).tolist()
    return [replace(arrival, at_s=at) for arrival, at in zip(arrivals, times, strict=True)]


def seat_seconds(arrival: Arrival, cost: StepCost, sequences: int) -> float:
    """Machine time that a request takes when every step is full."""
    middle = arrival.prompt_tokens + arrival.output_tokens / 2
    step = cost.step_s / sequences + cost.decode_s + middle * cost.context_s
    return arrival.prompt_tokens * cost.prefill_s + arrival.output_tokens * step


def at_rate(arrivals: Sequence[Arrival], per_s: float) -> list[Arrival]:
    """The same load at another pace."""
    span = arrivals[-1].at_s - arrivals[0].at_s
    factor = (len(arrivals) - 1) / per_s / span if span > 0 else 0.0
    return [replace(arrival, at_s=(arrival.at_s - arrivals[0].at_s) * factor) for arrival in arrivals]


def at_load(arrivals: Sequence[Arrival], share: float, cost: StepCost, sequences: int) -> list[Arrival]:
    """At `share` of what the machine could do if every step were full."""
    work = sum(seat_seconds(arrival, cost, sequences) for arrival in arrivals) / len(arrivals)
    return at_rate(arrivals, share / work)
