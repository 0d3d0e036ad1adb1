"""What every quantiser keeps to: the right bytes, near the numbers, independent of how rows are grouped."""

import numpy as np
import pytest

from edgewise.base import Unsupported
from edgewise.convert.quantisers import QUANTISERS
from edgewise.kernels import formats

pytestmark = pytest.mark.native


def build(name):
    return QUANTISERS.build(name)


@pytest.mark.parametrize("name", ["none", "rtn"])
def test_rows_that_a_format_holds_come_back(name):
    rows = (np.random.default_rng(0).integers(-8, 8, (6, 64)) / 16).astype(np.float32)
    for fmt in ("F32", "F16", "BF16"):
        packed = build(name).quantise("w", rows, fmt)
        assert packed.nbytes == formats.nbytes(fmt, rows.size)
        np.testing.assert_array_equal(formats.dequantize(fmt, packed, rows.size).reshape(rows.shape), rows)


@pytest.mark.parametrize("fmt", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_rtn_is_the_same_row_by_row(fmt):
    rows = np.random.default_rng(1).standard_normal((5, 512)).astype(np.float32)
    whole = build("rtn").quantise("w", rows, fmt)
    single = np.concatenate([build("rtn").quantise("w", row[None], fmt) for row in rows])
    np.testing.assert_array_equal(whole, single)


def test_formats_that_are_only_read_are_refused():
    with pytest.raises(Unsupported, match="read but not written"):
        build("rtn").quantise("w", np.zeros((1, 256), np.float32), "IQ4_XS")


def test_quantisers_print_as_they_are_built():
    assert [repr(build(name)) for name in ("none", "rtn")] == ["NoQuantiser()", "RtnQuantiser()"]
