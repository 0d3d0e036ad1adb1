"""A sentence that quotes a file can always be printed, and is never a megabyte."""

import pytest

from edgewise.base import BadInput, OutOfRoom, Unsupported


@pytest.mark.parametrize("kind", [BadInput, Unsupported, OutOfRoom])
def test_what_a_file_says_can_be_printed(kind: type[Exception]) -> None:
    assert str(kind("key '\udcff\U0001f600'")) == "key '\\udcff\U0001f600'"
    long = str(kind("start " + "x" * 1_000_000 + " end"))
    assert len(long) < 2100
    assert long.startswith("start ")
    assert long.endswith(" end")
