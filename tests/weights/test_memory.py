"""Files that are cheap to store and dear to hold: opening takes at most the file's size and 64 MB (rows R01, R02)."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.testing.mutate import forks, gguf
from edgewise.testing.mutate.loading import use

from .conftest import safetensors_bytes, write_hf

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer takes memory of its own"),
]


def extra(body: bytes) -> bytes:
    file = gguf.tiny()
    file.entries.append(gguf.Entry(b"extra.big", gguf.ARRAY, [], raw=body))
    return file.encode()


def strings(count: int, one: bytes) -> bytes:
    return extra(struct.pack("<IQ", gguf.STRING, count) + gguf.text(one) * count)


def arrays(count: int) -> bytes:
    return extra(struct.pack("<IQ", gguf.ARRAY, count) + struct.pack("<IQ", gguf.U8, 0) * count)


def keys(count: int) -> bytes:
    file = gguf.tiny()
    file.entries += [gguf.Entry(b"%x" % i, gguf.F64, 1.5) for i in range(count)]
    return file.encode()


def tensors(count: int) -> bytes:
    file = gguf.tiny()
    file.tensors = [gguf.Tensor(b"%x" % i, [1, 1, 1, 1], 24, b"\1") for i in range(count)]
    return file.encode()


GGUF: dict[str, Callable[[], bytes]] = {
    "two million empty strings": lambda: strings(2_000_000, b""),
    "two million short strings": lambda: strings(2_000_000, b"\xff\xfe"),
    "strings of 40 MB": lambda: strings(10, b"x" * (4 << 20)),
    "numbers of 40 MB": lambda: extra(struct.pack("<IQ", gguf.F32, 10 << 20) + bytes(40 << 20)),
    "60,000 arrays": lambda: arrays(60_000),
    "a million arrays": lambda: arrays(1_000_000),
    "60,000 keys": lambda: keys(60_000),
    "60,000 tensors": lambda: tensors(60_000),
    "a header of 60 MB": lambda: strings(15, b"x" * (4 << 20)),
}
W = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "60,000 tensors": lambda: b",".join(b'"%d":' % i + W for i in range(60_000)),
    "a name of 30 MB": lambda: b'"' + b"n" * (30 << 20) + b'":' + W,
    "metadata of 15 MB": lambda: b'"__metadata__":{"a":"' + b"n" * (15 << 20) + b'"}',
    "metadata of 200,000 keys": lambda: b'"__metadata__":{' + b",".join(b'"%d":""' % i for i in range(200_000)) + b"}",
    "90 MB of spaces": lambda: b" " * (90 << 20),
}
JSON: dict[str, Callable[[], bytes]] = {
    "empty lists": lambda: b'{"a":[' + b"[]," * 480_000 + b"0]}",
    "empty objects": lambda: b'{"a":[' + b"{}," * 480_000 + b"0]}",
    "keys": lambda: b"{" + b",".join(b'"%x":[]' % i for i in range(200_000)) + b"}",
    "one character outside ASCII": lambda: b'{"a":"' + b"n" * 1_900_000 + "\U0001f600".encode() + b'"}',
}


def grows(write: Callable[[], tuple[Path, int]]) -> list[forks.Failure]:
    """Opens what `write` makes, in a fork; the control is a plain model, so that imports are not counted."""

    def run(case: int) -> tuple[int, str]:
        path, nbytes = write()
        forks.begin()
        outcome = use(path, ["open", "read"])
        return nbytes, "loaded" if case < 0 else outcome

    return forks.run_cases([0], run, control=-1)[0]


@pytest.mark.parametrize("name", GGUF)
def test_gguf(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(GGUF[name]())
    assert not grows(lambda: (path, path.stat().st_size))


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(tmp_path: Path, name: str) -> None:
    path = write_hf(tmp_path) / "model.safetensors"
    path.write_bytes(safetensors_bytes(b"{" + SAFETENSORS[name]() + b"}"))
    assert not grows(lambda: (tmp_path, path.stat().st_size))


@pytest.mark.parametrize("name", JSON)
def test_config(tmp_path: Path, name: str) -> None:
    path = write_hf(tmp_path) / "config.json"
    path.write_bytes(JSON[name]())
    assert not grows(lambda: (tmp_path, path.stat().st_size))
