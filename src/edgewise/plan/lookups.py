"""Measures where table lookup beats dot products on this machine, and remembers it for every later start."""

from collections.abc import Sequence

import numpy as np

from edgewise.kernels import formats, lookup
from edgewise.kernels.choices import Question
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.plan.choices import Choices

NEVER: lookup.Least = (None,) * len(lookup.COLUMNS)
ALWAYS: lookup.Least = (1,) * len(lookup.COLUMNS)


class Duel:
    """A random weight of a format on a device, multiplied by either kernel."""

    def __init__(self, device: CpuDevice, fmt: str, rows: int, cols: int, columns: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.device, self.format, self.columns = device, fmt, columns
        self.stored = formats.quantize(fmt, rng.normal(size=(rows, cols)).astype(np.float32))
        self.weight = device.load((rows, cols), fmt, lambda at, n: self.stored[at : at + n])
        self.floats = rng.normal(size=(columns, cols)).astype(np.float32)
        self.x = device.upload(self.floats)

    def run(self, least: lookup.Least) -> object:
        self.device.set_lookup(self.format, least)
        return self.device.linear(self.x, self.weight)

    def dot(self) -> object:
        return self.run(NEVER)

    def lookup(self) -> object:
        return self.run(ALWAYS)


def measure(
    choices: Choices, device: CpuDevice, wanted: Sequence[str] = lookup.FORMATS, seconds: float = 0.02
) -> dict[str, lookup.Least]:
    """The least rows for each format, measured where nobody has; the device then works by them.

    Bits are compared as well: a lookup whose result differs from the dot products' would never be taken.
    """
    found: dict[str, lookup.Least] = {}
    for fmt in wanted:
        least = lookup.least_rows(lambda question: _ask(choices, device, question, seconds), fmt)
        assert least is not None
        found[fmt] = least
        device.set_lookup(fmt, least)
    return found


def _ask(choices: Choices, device: CpuDevice, question: Question, seconds: float) -> str:
    known = choices.known(question)
    if known is not None:
        return known
    duel = Duel(device, question.format, question.rows, question.cols, question.columns)
    return choices.pick(question, {lookup.DOT: duel.dot, lookup.LOOKUP: duel.lookup}, seconds=seconds)
