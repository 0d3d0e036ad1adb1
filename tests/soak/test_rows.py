"""Every reliability row of a running server or engine, at its small size (`scripts/soak` runs the full one)."""

import pytest

from edgewise.testing.soak import ASKED
from edgewise.testing.soak.__main__ import run
from edgewise.testing.soak.rows import ROWS

pytestmark = pytest.mark.native


def test_every_row_is_described():
    assert set(ROWS) == set(ASKED)


@pytest.mark.parametrize("row", ROWS)
def test_a_row(row):
    line = run(row, True, 1)
    assert line["ok"], line["got"]
    assert line["fail"] == 0
    assert line["n"] > 0
