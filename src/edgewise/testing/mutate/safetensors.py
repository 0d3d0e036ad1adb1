"""safetensors files as editable records: offsets, shapes, lengths and the JSON itself may lie."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgewise.testing.mutate import EXTREMES

DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "Q4_0", "f32", "", "F" * 5000)


@dataclass
class Tensor:
    """One entry of the header. `extra` is appended inside its object, as JSON text."""

    name: str
    dtype: Any
    shape: Any
    offsets: Any
    extra: str = ""

    def encode(self) -> str:
        inside = {"dtype": self.dtype, "shape": self.shape, "data_offsets": self.offsets}
        body = json.dumps({k: v for k, v in inside.items() if v is not None})
        return f"{json.dumps(self.name)}:{body[:-1]}{self.extra}}}"


@dataclass
class File:
    tensors: list[Tensor]
    data: bytes
    metadata: Any = field(default_factory=lambda: {"format": "pt"})
    raw: bytes | None = None  # replaces the header's text
    length: int | None = None  # replaces the header's length
    padding: bytes = b""
    tail: bytes = b""
    cut: int | None = None
    flips: list[tuple[int, int]] = field(default_factory=list)  # within the header
    swap: tuple[str, str] | None = None  # replace this text in the header by that

    def header(self) -> bytes:
        parts = [] if self.metadata is None else [f'"__metadata__":{json.dumps(self.metadata)}']
        text = "{" + ",".join(parts + [t.encode() for t in self.tensors]) + "}"
        if self.swap is not None:
            text = text.replace(*self.swap, 1)
        data = bytearray(text.encode("utf-8", "surrogatepass") if self.raw is None else self.raw)
        for at, bits in self.flips if data else ():
            data[at % len(data)] ^= bits
        return bytes(data) + self.padding

    def encode(self) -> bytes:
        header = self.header()
        length = (len(header) if self.length is None else self.length) & (2**64 - 1)
        out = length.to_bytes(8, "little") + header + self.data + self.tail
        return out if self.cut is None else out[: self.cut]


def parse(data: bytes) -> File:
    """A valid file as records."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", None)
    tensors = [Tensor(n, t["dtype"], list(t["shape"]), list(t["data_offsets"])) for n, t in header.items()]
    return File(tensors, data[8 + length :], metadata)


def _number(rng: random.Random) -> Any:
    return rng.choice([*EXTREMES, -1, -(2**63), 1e3, 1.5, "7", None, True, [], {}, 10**30])


def _offsets(file: File, rng: random.Random) -> None:
    tensor, other = rng.choice(file.tensors), rng.choice(file.tensors)
    match rng.randrange(6):
        case 0:
            tensor.offsets[rng.randrange(2)] = _number(rng)
        case 1:
            tensor.offsets = list(reversed(tensor.offsets))
        case 2:
            tensor.offsets = list(other.offsets)
        case 3 if all(isinstance(x, int) for x in tensor.offsets):
            tensor.offsets = [x + rng.choice([-4, 4, 1]) for x in tensor.offsets]
        case 4:
            tensor.offsets = rng.choice([[], [0], [0, 0, 0], [0, 0], None, "x", 7, {"a": 1}, [[0, 4]]])
        case _:
            file.tensors.remove(tensor)


def _shape(file: File, rng: random.Random) -> None:
    tensor = rng.choice(file.tensors)
    if isinstance(tensor.shape, list) and tensor.shape and rng.random() < 0.7:
        for _ in range(rng.choice([1, 2])):
            tensor.shape[rng.randrange(len(tensor.shape))] = _number(rng)
    else:
        tensor.shape = rng.choice([[], [0], [1] * 40, [2**32, 2**32], [2**63, 2], None, "x", {}, [[1]], [0, 2**64 - 1]])


def _dtype(file: File, rng: random.Random) -> None:
    rng.choice(file.tensors).dtype = rng.choice([*DTYPES, None, 7, [], {}])


def _names(file: File, rng: random.Random) -> None:
    tensor, other = rng.choice(file.tensors), rng.choice(file.tensors)
    tensor.name = rng.choice([other.name, "", "__metadata__", "a\0b", "x" * 100000, "\ud800", "../../x", "é" * 9])


def _metadata(file: File, rng: random.Random) -> None:
    file.metadata = rng.choice([None, [], "x", 7, {"a": 1}, {"a": None}, {"a": {"b": "c"}},
        {"a": "b" * 200000}, {"": ""},
                                {str(i): "" for i in range(20000)}])  # fmt: skip


def _text(file: File, rng: random.Random) -> None:
    """The JSON itself: duplicate keys, deep nesting, not UTF-8, numbers as other things."""
    match rng.randrange(8):
        case 0:
            extra = rng.choice([',"dtype":"F32"', ',"x":1', ',"shape":[]', ",", ',"a":' + "[" * 5000])
            rng.choice(file.tensors).extra = extra
        case 1:
            depth = rng.choice([3, 5, 64, 100000])
            file.raw = b'{"a":' * depth + b"1" + b"}" * depth
        case 2:
            file.raw = rng.choice(
                [b"", b"{", b"{}", b"[]", b"null", b"{}{}", b" {}", b"\xef\xbb\xbf{}", b"{" * 9, b'{"a"']
            )
        case 3:
            file.swap = rng.choice([("F32", "F32\xff"), (":", ":\0"), ("0", "0.0"), ("0", "1e3"), ("0", "00"),
                ("0", "-0"),
                                    ("[", "[NaN,"), (",", ",,"), ("}", ",}"), ('"', "'"), ("0", "0 0")])  # fmt: skip
        case 4:
            file.padding = rng.choice([b" " * 7, b"\n", b"\0" * 8, b"x", b" " * 100000])
        case 5:
            one = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
            file.raw = b"{" + b",".join(one % i for i in range(70000)) + b"}"
        case _:
            file.flips = [(rng.randrange(1 << 20), 1 << rng.randrange(8)) for _ in range(rng.choice([1, 3]))]


def _whole(file: File, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            file.length = rng.choice([*EXTREMES, len(file.header()) + rng.choice([-1, 1, 8]), 100_000_000, 100_000_001])
        case 1:
            file.cut = rng.randrange(len(file.encode()) + 1)
        case 2:
            file.tail = bytes(rng.choice([1, 8, 4096]))
        case _:
            file.data = rng.choice([b"", file.data[:-1], rng.randbytes(len(file.data))])


def _valid(file: File, rng: random.Random) -> None:
    """Another file that keeps the format's rules: order, dtype, shape or names differ, and the models must notice."""
    pieces = {id(t): file.data[t.offsets[0] : t.offsets[1]] for t in file.tensors}
    tensor = rng.choice(file.tensors)
    match rng.randrange(5):
        case 0:
            rng.shuffle(file.tensors)
        case 1:
            file.tensors.remove(tensor)
        case 2:
            tensor.name = rng.choice(["extra", tensor.name.replace("0", "1"), tensor.name + ".scale", "lm_head.weight"])
        case 3:
            tensor.dtype = rng.choice(["I32", "U32", "F32"])
        case _:
            whole = len(pieces[id(tensor)]) // 4
            tensor.shape = rng.choice([[whole], [1, whole], [whole, 1], list(reversed(tensor.shape)), [whole, 1, 1]])
    at, data = 0, []
    for t in file.tensors:
        data.append(pieces[id(t)])
        t.offsets = [at, at + len(data[-1])]
        at = t.offsets[1]
    file.data = b"".join(data)


MUTATORS: tuple[tuple[int, Callable[[File, random.Random], None]], ...] = (
    (5, _offsets), (5, _shape), (3, _dtype), (3, _names), (2, _metadata), (5, _text), (4, _whole), (30, _valid),
)  # fmt: skip


def mutant(base: File, rng: random.Random) -> bytes:
    """`base` with one to three fields changed."""
    tensors = [replace(t, shape=list(t.shape), offsets=list(t.offsets)) for t in base.tensors]
    file = replace(base, tensors=tensors, flips=[])
    weights, changes = zip(*MUTATORS, strict=True)
    for _ in range(rng.randrange(1, 4)):
        change = rng.choices(changes, weights)[0]
        try:
            if file.tensors:
                change(file, rng)
        except (TypeError, IndexError, KeyError):  # an earlier change left nothing for this one to hold on to
            continue
    return file.encode()
