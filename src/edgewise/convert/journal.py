"""Data that is written in order, with a line for every record of it that is safely on the disk: an interrupted
conversion goes on after the last one. Both lie beside the output until all of it is there."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SYNC_BYTES = 64 << 20  # written between two moments from which it could go on


class Journal:
    """output: what will be written at the end. stamp: what every byte depends on; another one begins anew.

    name: of the data file. head: the bytes it begins with.
    """

    def __init__(self, output: Path, stamp: str, name: str, head: bytes) -> None:
        self.folder = output.parent / f".{output.name}.parts"
        self.data = self.folder / name
        self.lines = self.folder / f"{name}.done"
        self.stamp = stamp
        self.head = head
        self.records: list[dict[str, Any]] = []  # of what is on the disk
        self._fresh: list[str] = []  # lines of what may not be
        self._unsafe = 0
        self._fd = -1

    def open(self, sizes: Sequence[int]) -> int:
        """Takes up what is there; how many of the records, of `sizes` bytes each, need not be written again."""
        self.folder.mkdir(exist_ok=True)
        self.records = self._found(sizes)
        kept = len(self.head) + sum(sizes[: len(self.records)])
        new = self.lines.with_suffix(".new")
        new.write_text("".join(json.dumps(line) + "\n" for line in ({"stamp": self.stamp}, *self.records)))
        os.replace(new, self.lines)
        self._fd = os.open(self.data, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._fd, kept if self.records else 0)
        os.lseek(self._fd, 0, os.SEEK_END)
        if not self.records:
            _write(self._fd, self.head)
        return len(self.records)

    def _found(self, sizes: Sequence[int]) -> list[dict[str, Any]]:
        try:
            written = self.lines.read_text(encoding="utf-8").split("\n")
            if json.loads(written[0]) != {"stamp": self.stamp}:
                return []
            room = self.data.stat().st_size - len(self.head)
        except (OSError, ValueError):
            return []
        records: list[dict[str, Any]] = []
        for line, size in zip(written[1:-1], sizes, strict=False):  # what follows the last newline was cut off
            room -= size
            if room < 0:
                break
            records.append(json.loads(line))
        return records

    def add(self, data: memoryview, record: dict[str, Any]) -> None:
        _write(self._fd, data)
        self.records.append(record)
        self._fresh.append(json.dumps(record) + "\n")
        self._unsafe += len(data)
        if self._unsafe >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """From here on it can go on."""
        os.fsync(self._fd)
        with open(self.lines, "a", encoding="utf-8") as file:
            file.write("".join(self._fresh))
            file.flush()
            os.fsync(file.fileno())
        self._fresh, self._unsafe = [], 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def move(self, path: Path) -> None:
        """The data to its place; nothing is left beside the output."""
        self.close()
        os.replace(self.data, path)
        self.remove()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(fd: int, data: Any) -> None:
    """All of it: a write that meets a full disk may end early before it fails."""
    done, view = 0, memoryview(data).cast("B")
    while done < len(view):
        done += os.write(fd, view[done:])
