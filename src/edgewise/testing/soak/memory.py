"""R12 and R24: disks that fail under swap, and the page allocator under a long random walk."""

import collections
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

from edgewise.kv.swap import Disk, SwapFile
from edgewise.testing.identity import Tally, alone_slots, play_round, slots
from edgewise.testing.kv_bugs import BUGS, cache_with
from edgewise.testing.kv_walk import walk
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import environment

FAULTS = ("EIO", "ENOSPC", "short", "stale", "flip")


class BadDisk(Disk):
    """The `at`-th call goes wrong in one of the ways that disks have, and each `every`-th after it too (0: none)."""

    def __init__(self, how: str, at: int, every: int = 0) -> None:
        self.how, self.at, self.every, self.calls, self.hurt = how, at, every, 0, 0

    def _now(self) -> bool:
        self.calls += 1
        beyond = self.calls - self.at
        now = beyond == 0 or (self.every > 0 and beyond > 0 and beyond % self.every == 0)
        self.hurt += now
        return now

    def open(self, folder: Path | None) -> int:
        if self._now() and self.how in ("EIO", "ENOSPC"):
            raise OSError(getattr(errno, self.how), "injected")
        return super().open(folder)

    def write(self, fd: int, data: memoryview) -> int:
        if self._now():
            if self.how in ("EIO", "ENOSPC"):
                raise OSError(getattr(errno, self.how), "injected")
            if self.how == "short":
                return super().write(fd, data[: len(data) // 2])
            if self.how == "stale":
                os.lseek(fd, len(data), os.SEEK_CUR)  # says it wrote; the old bytes (zeros) stay
                return len(data)
            return super().write(fd, memoryview(bytes([data[0] ^ 1]) + bytes(data[1:])))
        return super().write(fd, data)

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        data = super().read(fd, nbytes, offset)
        if self._now():
            if self.how in ("EIO", "ENOSPC"):
                raise OSError(getattr(errno, self.how), "injected")
            if self.how == "short":
                return data[: len(data) // 2]
            if self.how == "stale":
                return bytes(len(data))
            return bytes([data[0] ^ 128]) + data[1:]
        return data


def swap_on(disk: Disk) -> SwapFile:
    swap = SwapFile(disk=disk)
    swap._rate = 1e12  # always cheaper than computing again
    return swap


SEED = 11  # a round of it swaps a good deal


def play(disk: Disk, tally: Tally) -> None:
    """Raises AssertionError when a token differs. The round's cache is small, so that sequences are preempted."""
    play_round(SEED, 12, slots, alone_slots, tally, policy="mlfq", swap=swap_on(disk))


def disk_faults(small: bool, seed: int) -> Found:
    """Every call of one round in turn, then rounds in which many fail; and a disk that is really full, in a child."""
    counting = BadDisk("none", 0)
    clean = Tally()
    play(counting, clean)
    calls = counting.calls
    tries = fails = hurt = 0
    tally = Tally()
    words: list[str] = []
    for how in FAULTS:
        step = calls // 2 if small else 1
        plans = [(at, 0) for at in range(1, calls + 1, step)] + [
            (1, every) for every in ((2,) if small else (1, 2, 3, 7))
        ]
        for at, every in plans:
            disk = BadDisk(how, at, every)
            tries += 1
            try:
                play(disk, tally)
            except AssertionError as problem:
                fails += 1
                words.append(f"{how} at {at}: {problem}")
            hurt += disk.hurt
    full = subprocess.run(
        [sys.executable, "-m", "edgewise.testing.soak.memory"], env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    tries += 1
    if full.returncode:
        fails += 1
        words.append(full.stderr[-300:])
    got = f"{calls} calls, {hurt} faults, {tally.swapped} swapped in beside them, a full disk: exit {full.returncode}"
    ok = fails == 0 and hurt >= tries // 2 and clean.swapped > 0
    return Found(tries, fails, "; ".join([got, *words[:3]]), ok)


def full_disk() -> None:
    """Files may have 100 bytes: every larger write fails as on a full disk, below Python."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    swap = swap_on(Disk())
    tally = Tally()
    play_round(SEED, 12, slots, alone_slots, tally, policy="mlfq", swap=swap)
    assert swap.faults > 0, "no write failed"


def allocator(small: bool, seed: int) -> Found:
    steps, part = (4_000, 4_000) if small else (1_000_000, 20_000)
    done: collections.Counter[str] = collections.Counter()
    fails, words = 0, []
    for number in range(steps // part):
        try:
            done += walk(part, seed + number).done
        except AssertionError as problem:
            fails += 1
            words.append(f"seed {seed + number}: {problem}")
    caught = 0
    bugs = BUGS[::6] if small else BUGS
    for bug in bugs:
        try:
            for at in range(4):
                walk(5000, at, cache_with(bug))
            words.append(f"{bug.__name__} was not caught")
        except (AssertionError, KeyError, IndexError, ValueError):
            caught += 1
    got = (
        f"{steps} steps ({sum(done.values())} operations), violations {fails}; {caught}/{len(bugs)} seeded bugs caught"
    )
    return Found(steps, fails, "; ".join([got, *words[:3]]), fails == 0 and caught == len(bugs))


if __name__ == "__main__":
    full_disk()
