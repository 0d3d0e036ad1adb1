"""Grids: what is packed is what the format's own reader finds, and a search never loses to plain rounding."""

import numpy as np
import pytest

from edgewise.convert.grids import GRIDS
from edgewise.convert.grids.api import blocks_of, round_to, spread, widen
from edgewise.convert.grids.fitting import error_of, search, settle
from edgewise.convert.grids.nearest import nearest
from edgewise.kernels import formats

pytestmark = pytest.mark.native


def rows_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    rows = (rng.standard_t(3, (6, 512)) * 0.02).astype(np.float32)
    if kind == "zero":
        rows[:] = 0
    elif kind == "constant":
        rows[:] = [[0.3], [-0.3], [1e-8], [1e-30], [65000.0], [0.0]]
    elif kind == "huge":
        rows[0, 3], rows[1, 7], rows[2] = 3e38, -3e38, 1e20
    elif kind == "one sign":
        rows = np.abs(rows) * np.float32([1, -1, 1, -1, 1, -1])[:, None]
    return rows


KINDS = ["usual", "zero", "constant", "one sign", "huge"]


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("fmt", sorted(GRIDS))
def test_readers_find_what_was_packed(fmt, kind):
    grid, rows = GRIDS[fmt], rows_of(kind)
    x = blocks_of(grid, rows)
    rng = np.random.default_rng(6)
    codes = rng.integers(grid.low, grid.high + 1, x.shape)
    settled, _ = settle(grid, x, *search(grid, x, None), None)
    packed = grid.pack(codes.astype(np.int32), settled).reshape(-1)
    assert packed.nbytes == formats.nbytes(fmt, rows.size)
    read = formats.dequantize(fmt, packed, rows.size).reshape(x.shape)
    np.testing.assert_array_equal(read, widen(codes.astype(np.float32), settled))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("fmt", sorted(GRIDS))
def test_a_search_never_loses_to_plain_rounding(fmt, kind, weighted):
    grid, rows = GRIDS[fmt], rows_of(kind)
    importance = np.linspace(0, 3, rows.shape[1], dtype=np.float32) ** 2 if weighted else None
    a = None if importance is None else spread(grid, importance, len(rows))
    x = blocks_of(grid, rows)
    errors = []
    for packed in (nearest(grid, rows, importance), formats.quantize(fmt, rows)):
        errors.append(error_of(x, formats.dequantize(fmt, packed, rows.size).reshape(x.shape), a).sum(-1))
    assert (errors[0] <= errors[1]).all()
    if kind == "usual" and fmt in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        assert errors[0].sum() < 0.99 * errors[1].sum()


@pytest.mark.parametrize("fmt", sorted(GRIDS))
def test_codes_are_the_nearest(fmt):
    grid, rows = GRIDS[fmt], rows_of("usual")
    x = blocks_of(grid, rows)
    settled, _ = settle(grid, x, *search(grid, x, None), None)
    q = round_to(grid, x, settled.scale, settled.offset)
    for other in (np.maximum(q - 1, grid.low), np.minimum(q + 1, grid.high)):
        assert (np.abs(x - widen(q, settled)) <= np.abs(x - widen(other, settled)) + 1e-6).all()


@pytest.mark.parametrize("fmt", sorted(GRIDS))
def test_weights_near_the_end_of_float32_stay_finite(fmt):
    rows = rows_of("huge")
    assert np.isfinite(formats.dequantize(fmt, nearest(GRIDS[fmt], rows, None), rows.size)).all()
