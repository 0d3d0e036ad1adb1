"""Which settings are worth measuring for a matmul: at most 64, by rules instead of a full product.

After nn-JIT.web's rules (arXiv 2309.08978): what cannot matter for a number of columns or a format keeps its standard.
Prefetching and the number of row blocks matter to the formats of matmul_quant.cc; sweeps of several columns need
several columns; the second-level cache matters when columns outnumber a tile. `wake` is nobody's candidate: whether a
thread is worth waking depends on when it worked last, so that a matmul measured alone says nothing about a step.
"""

import itertools
from collections.abc import Sequence

from edgewise.kernels.choices import RANGES
from edgewise.kernels.tuning import Knobs, Matmul

MOST = 64
ASKING = ("Q4_0", "Q8_0", "Q4_K", "Q6_K")  # kernels that can prefetch and can take row blocks one by one
KIB = 1 << 10

Grid = dict[str, Sequence[int]]


def candidates(matmul: Matmul, standard: Knobs, threads: int) -> list[Knobs]:
    """Every one differs from the standard and names only what differs."""
    found = _settings(_grid(matmul, standard, matmul.format in ASKING, threads), standard)
    if threads > 3:
        found += [{"threads": threads // 2}, {"threads": threads * 3 // 4}]
    return sorted(found, key=len)[:MOST]  # of equals the plainest comes first


def everything(matmul: Matmul, standard: Knobs, threads: int) -> list[Knobs]:
    """What the rules leave out as well: every combination of a finer grid. For a search that has minutes."""
    most = RANGES[matmul.range] if matmul.range < len(RANGES) else 0
    asking = matmul.format in ASKING
    grid: Grid = {"cut": (1, 2, 4, 8) if threads > 1 else (standard["cut"],)}
    if most in (1, 2, 4, 8):
        grid["columns"] = [n for n in (1, 2, 4, 8) if n <= most] if most > 1 else (standard["columns"],)
        if asking:
            grid["ahead"] = (0, 1152, 2304, 4608, 9216, 18432, 36864)
    else:
        grid["columns"] = (2, 4, 8)
        grid["chunk"] = tuple(n * KIB for n in (96, 192, 384, 768, 1536))
        grid["share"] = tuple(n * KIB for n in (0, 128, 512, 2048)) if threads > 1 else (standard["share"],)
        grid["cut"] = (standard["cut"],)
        if asking:
            grid["ahead"] = (0, 4608, 9216)
    if asking:
        grid["blocks"] = (1, 2)
    found = candidates(matmul, standard, threads)
    known = {tuple(sorted(knobs.items())) for knobs in found}
    return found + [knobs for knobs in _settings(grid, standard) if tuple(sorted(knobs.items())) not in known]


def _settings(grid: Grid, standard: Knobs) -> list[Knobs]:
    """All of a grid, each naming what differs from the standard; the standard itself is none of them."""
    found: dict[tuple[tuple[str, int], ...], Knobs] = {}
    for values in itertools.product(*grid.values()):
        setting = {name: v for name, v in zip(grid, values, strict=True) if v != standard[name]}
        if setting:
            found.setdefault(tuple(setting.items()), setting)
    return list(found.values())


def _grid(matmul: Matmul, standard: Knobs, asking: bool, threads: int) -> Grid:
    most = RANGES[matmul.range] if matmul.range < len(RANGES) else 0  # columns of the range; 0: no end
    grid: Grid = {}
    if most in (1, 2, 4, 8):
        if asking:
            grid["ahead"] = (0, 2304, 4608, 9216, 18432) if most <= 2 else (0, 4608, 9216, 18432)
            grid["blocks"] = (1, 2)
        if most > 1:
            less = {2: (1,), 4: (2,), 8: (2, 4)}[most]  # what is as large as the range changes nothing
            grid["columns"] = (*less, standard["columns"])
        if threads > 1:
            grid["cut"] = {1: (1, 2, 4), 2: (1, 2, 4), 4: (1, 2, 4), 8: (2, 4)}[most]
        if asking and most == 2:
            grid["blocks"] = (2,)
    else:
        grid["columns"] = (2, 4, 8)
        grid["chunk"] = (96 * KIB, 192 * KIB, 384 * KIB, 768 * KIB)
        if threads > 1:
            grid["share"] = (128 * KIB, 512 * KIB, 2048 * KIB)
        if asking:
            grid["ahead"] = (0, 9216)
            grid["columns"] = (4, 8)
    return grid
