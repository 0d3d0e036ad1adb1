"""Two threads that read a source at once open its file once."""

import threading
import time
from pathlib import Path

import pytest

from edgewise.base import BadInput
from edgewise.weights import bundle
from edgewise.weights.api import Extent
from edgewise.weights.sources import SOURCES


def test_threads_that_come_first_together_open_the_file_once(tmp_path, monkeypatch):
    path = tmp_path / "weights.gguf"
    path.write_bytes(bytes(range(100)))
    opened, real = [], bundle.open_file

    def slow(path: Path, *, chosen: bool = False):
        opened.append(path)
        time.sleep(0.05)  # long enough for the other thread to come
        return real(path, chosen=chosen)

    monkeypatch.setattr(bundle, "open_file", slow)
    source = SOURCES.build("file", files=(path,))
    got = []

    def read():
        got.append(bytes(source.read(Extent(0, 10, 5), 1, 3)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [bytes([11, 12, 13])] * 4
    assert opened == [path]
    source.close()


def test_a_place_is_only_given_for_bytes_that_lie_there(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(bytes(100))
    source = SOURCES.build("file", files=(path,))
    fd, offset, named = source.place(Extent(0, 10, 5))
    assert fd >= 0
    assert (offset, named) == (10, path)
    source.close()
    assert SOURCES.build("faulty", files=(path,)).place(Extent(0, 10, 5)) is None
    path.unlink()
    with pytest.raises(BadInput, match="no such file"):
        SOURCES.build("file", files=(path,)).place(Extent(0, 10, 5))
