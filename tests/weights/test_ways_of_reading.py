"""io_uring, the page cache and plain reads give the same bytes; a probe chooses among those that work."""

import errno
import os
import threading

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.kernels import rings
from edgewise.weights import probing
from edgewise.weights.api import Extent
from edgewise.weights.sources import SOURCES, uring

SIZE = 1_000_003
needs_ring = pytest.mark.skipif(bool(rings.why_not()), reason="no io_uring here")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "bytes.gguf"
    path.write_bytes(np.random.default_rng(7).bytes(SIZE))
    return path


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("name", ["file", "cached", pytest.param("uring:part=8192", marks=needs_ring)])
def test_every_way_gives_the_bytes_of_the_file(path, name, direct) -> None:
    source, data = SOURCES.build(name, files=(path,), direct=direct), path.read_bytes()
    extent = Extent(0, 0, SIZE)
    for at, count in [(0, SIZE), (4096, 8192), (5, 70_000), (SIZE - 1, 1), (SIZE - 300_001, 300_001)]:
        assert bytes(source.read(extent, at, count)) == data[at : at + count]
        assert bytes(source.glance(extent, at, count)) == data[at : at + count]
    source.close()
    assert bytes(source.read(extent, 3, 9)) == data[3:12]  # opened again
    source.close()


@needs_ring
def test_rings_of_several_threads_do_not_meet(path) -> None:
    source, data = SOURCES.build("uring:part=4096", files=(path,)), path.read_bytes()
    wrong = []

    def read(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(50):
            at = int(draw.integers(0, SIZE - 5000))
            if bytes(source.read(Extent(0, 0, SIZE), at, 5000)) != data[at : at + 5000]:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    source.close()


@needs_ring
def test_a_ring_says_what_failed_and_where_a_file_ends(path) -> None:
    ring, into = rings.Queue(4), memoryview(bytearray(8192))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        ring.read(-1, into, 0, 4096)
    with path.open("rb") as file:
        assert ring.read(file.fileno(), into, SIZE - 5000, 4096) == 5000
        assert ring.read(file.fileno(), into, SIZE, 4096) == 0
    extent = Extent(0, 0, SIZE)
    source = SOURCES.build("uring", files=(path,))
    source.read(extent, 0, 1)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(BadInput, match="shrank"):
        source.read(extent, 0, 2000)
    source.close()


def test_where_io_uring_is_forbidden_it_is_refused_by_name_and_not_chosen(path, monkeypatch) -> None:
    monkeypatch.setattr(uring, "why_not", lambda: "Operation not permitted")
    monkeypatch.setattr(probing, "PIECE_BYTES", 4096)
    with pytest.raises(Unsupported, match=r"no io_uring \(Operation not permitted\). Take source 'file'"):
        SOURCES.build("uring", files=(path,))
    found = probing.probe(path)
    assert set(found.rates) == {"file", "cached"}
    assert found.chosen in found.rates
    assert "Operation not permitted" in found.why


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [({"file": 2.0, "uring": 2.1, "cached": 1.0}, "file"), ({"file": 2.0, "uring": 2.3, "cached": 9.0}, "cached")],
)
def test_another_way_is_taken_when_it_is_clearly_faster(path, monkeypatch, rates, chosen) -> None:
    monkeypatch.setattr(probing, "PIECE_BYTES", 4096)
    monkeypatch.setattr(probing, "_rate", lambda name, *_: rates[name])
    found = probing.probe(path)
    assert found.chosen == chosen
    assert all(name in found.why for name in rates)


def test_nothing_is_read_of_a_small_file(tmp_path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"1234")
    found = probing.probe(tmp_path / "small.gguf")
    assert (found.chosen, found.rates) == ("file", {})
