"""Row R12: whatever a disk does, the bytes that come back are the bytes that went, or nothing comes back."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput, SeqId
from edgewise.kv.api import Chunk
from edgewise.kv.swap import Disk, SwapFile, open_swap
from edgewise.testing.soak.memory import BadDisk


def chunks(seed: int, size: int = 1000, count: int = 3) -> list[Chunk]:
    numbers = np.random.default_rng(seed)
    return [numbers.integers(0, 256, size, np.uint8) for _ in range(count)]


def test_what_went_comes_back(tmp_path: Path) -> None:
    swap = SwapFile(tmp_path)
    for seq in range(5):
        assert swap.put(SeqId(seq), 10 + seq, chunks(seq))
    swap.fetch(SeqId(3))
    for seq in (3, 0, 4, 1):
        kept = swap.take(SeqId(seq))
        assert kept is not None
        assert kept[0] == 10 + seq
        assert all(np.array_equal(a, b) for a, b in zip(kept[1], chunks(seq), strict=True))
    assert swap.take(SeqId(3)) is None
    assert swap.seconds(10**6) > 0
    assert list(tmp_path.iterdir()) == []  # no names: nothing stays behind, even after a kill
    swap.drop(SeqId(2))
    swap.close()
    assert swap._held == 0


@pytest.mark.parametrize("how", ["EIO", "ENOSPC", "short", "stale", "flip"])
def test_no_fault_of_a_disk_gives_wrong_bytes(how: str) -> None:
    lost = 0
    for at in range(1, 40):
        disk = BadDisk(how, at)
        swap = SwapFile(disk=disk)
        for seq in range(4):
            swap.put(SeqId(seq), 7, chunks(seq))
        kept = [swap.take(SeqId(seq)) for seq in range(4)]
        for seq, one in enumerate(kept):
            if one is not None:
                assert all(np.array_equal(a, b) for a, b in zip(one[1], chunks(seq), strict=True))
        gone = sum(one is None for one in kept)
        assert gone <= 1, "a fault hurt more than the sequence it met"
        lost += gone
        before = len(os.listdir("/proc/self/fd")) if at == 39 else 0
        swap.close()
        assert at != 39 or len(os.listdir("/proc/self/fd")) <= before
        if not disk.hurt:
            break
    else:
        pytest.fail("the walk over all calls does not end")
    assert (lost == 0) == (how == "short")  # a short write or read is simply gone on with


def test_limits(tmp_path: Path) -> None:
    swap = SwapFile(tmp_path, limit_bytes=6500)
    assert swap.put(SeqId(0), 1, chunks(0))
    assert swap.put(SeqId(1), 1, chunks(1))
    assert not swap.put(SeqId(2), 1, chunks(2))
    swap.drop(SeqId(0))
    assert swap.put(SeqId(2), 1, chunks(2))
    assert not SwapFile(staging_bytes=2000).put(SeqId(0), 1, chunks(0))
    swap.close()
    with pytest.raises(BadInput, match="does not exist"):
        SwapFile(tmp_path / "nowhere")


def test_a_slow_disk_makes_callers_wait_but_never_fills_memory() -> None:
    class Slow(Disk):
        gate = threading.Event()
        most = 0

        def write(self, fd: int, data: memoryview) -> int:
            self.gate.wait(5)
            Slow.most = max(Slow.most, swap._staged)
            return super().write(fd, data)

    swap = SwapFile(staging_bytes=7000, disk=Slow())
    threading.Timer(0.05, Slow.gate.set).start()
    for seq in range(6):
        assert swap.put(SeqId(seq), 1, chunks(seq))
    assert swap.stalled_s > 0
    assert 0 < Slow.most <= 7000
    assert all(swap.take(SeqId(seq)) is not None for seq in range(6))
    swap.close()


def test_a_place_is_said_in_one_word(tmp_path: Path) -> None:
    gib = 1 << 30
    assert open_swap("none") is None
    for text, folder, limit in (
        ("auto", None, 8 * gib),
        ("4", None, 4 * gib),
        ("1.5GiB", None, 3 * gib // 2),
        ("500mb", None, 500 << 20),
        (str(tmp_path), tmp_path, 8 * gib),
        (f"{tmp_path}:2G", tmp_path, 2 * gib),
    ):
        swap = open_swap(text)
        assert swap is not None
        assert (swap.folder, swap.limit_bytes) == (folder, limit), text


@pytest.mark.parametrize("text", ["nowhere", "4QiB", "nowhere:4GiB", "", "0", "-1"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="swap is"):
        open_swap(text)
