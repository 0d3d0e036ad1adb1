"""A failing disk is an error that names file and offset; a short read is repaired; nothing is read twice."""

from pathlib import Path

import pytest

from edgewise.base import BadInput
from edgewise.weights.api import Extent
from edgewise.weights.sources import SOURCES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.gguf"
    path.write_bytes(bytes(range(256)))
    return path


def test_reads_give_the_bytes_of_the_file(path: Path) -> None:
    source = SOURCES.build("file", files=[path])
    assert bytes(source.read(Extent(0, 10, 20), 5, 7)) == bytes(range(15, 22))
    source.close()
    assert bytes(source.read(Extent(0, 10, 20), 0, 1)) == b"\x0a"
    source.close()


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("kind", ["eio", "end"])
def test_the_kth_read_fails_and_only_that_one(path: Path, kind: str, at: int) -> None:
    source = SOURCES.build(f"faulty:kind={kind},at={at}", files=[path])
    for k in range(4):
        if k == at:
            what = "Input/output error" if kind == "eio" else "cut short"
            with pytest.raises(BadInput, match=f"data.gguf: reading 3 bytes at byte {20 + k}.*{what}"):
                source.read(Extent(0, 20, 50), k, 3)
        else:
            assert bytes(source.read(Extent(0, 20, 50), k, 3)) == bytes(range(20 + k, 23 + k))
    source.close()


def test_a_short_read_is_asked_for_again(path: Path) -> None:
    source = SOURCES.build("faulty:kind=short,at=0", files=[path])
    assert bytes(source.read(Extent(0, 0, 256), 0, 256)) == bytes(range(256))
    assert source.calls == 2
    source.close()


def test_a_wrong_bit_is_not_noticed_here(path: Path) -> None:
    """The negative control of whoever promises to notice (sealed files do)."""
    source = SOURCES.build("faulty:kind=flip,at=0", files=[path])
    wrong = bytes(source.read(Extent(0, 0, 256), 0, 256))
    assert sum(a != b for a, b in zip(wrong, range(256), strict=True)) == 1
    source.close()


def test_an_unknown_kind_of_fault_is_refused(path: Path) -> None:
    with pytest.raises(BadInput, match="no kind 'smoke'"):
        SOURCES.build("faulty:kind=smoke", files=[path])


def test_a_file_that_went_away_is_a_sentence(path: Path) -> None:
    source = SOURCES.build("file", files=[path])
    path.unlink()
    with pytest.raises(BadInput, match="no such file"):
        source.read(Extent(0, 0, 1), 0, 1)
