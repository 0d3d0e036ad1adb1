"""GGUF files as editable records: counts, lengths, types and offsets may lie. `tiny()` is a llama that runs."""

import functools
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgewise.testing.mutate import EXTREMES

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
_M64 = 2**64 - 1


def _word(value: int, nbytes: int) -> bytes:
    return (value & ((1 << (8 * nbytes)) - 1)).to_bytes(nbytes, "little")


def text(value: bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` replaces the true one."""
    return _word(len(value) if length is None else length, 8) + value


def pack(kind: int, value: Any) -> bytes:
    """One scalar or string of a given type; values out of the type's range wrap."""
    if kind == STRING:
        return text(value if isinstance(value, bytes) else str(value).encode())
    if kind in (F32, F64):
        try:
            return struct.pack("<" + PACK[kind], float(value))
        except (TypeError, ValueError, OverflowError):
            return struct.pack("<" + PACK[kind], float("nan"))
    number = int(value) if isinstance(value, (int, float, bool)) and value == value and abs(value) < 2**70 else 0
    return _word(number, struct.calcsize(PACK[kind]))


@dataclass
class Entry:
    """One metadata key. `element` and `count` are for arrays; None means the truth."""

    key: bytes
    kind: int
    value: Any
    element: int = 0
    count: int | None = None
    key_length: int | None = None
    length: int | None = None  # of a string value
    raw: bytes | None = None  # replaces the encoded value

    def encode(self) -> bytes:
        head = text(self.key, self.key_length) + _word(self.kind, 4)
        if self.raw is not None:
            return head + self.raw
        if self.kind == ARRAY:
            values = self.value if isinstance(self.value, list) else []
            count = len(values) if self.count is None else self.count
            return head + _word(self.element, 4) + _word(count, 8) + b"".join(self._element(v) for v in values)
        if self.kind == STRING and self.length is not None and isinstance(self.value, bytes):
            return head + text(self.value, self.length)
        return head + (pack(self.kind, self.value) if self.kind in PACK or self.kind == STRING else b"\0" * 4)

    def _element(self, value: Any) -> bytes:
        known = self.element in PACK or self.element == STRING
        return pack(self.element, value) if known else bytes(12)


@dataclass
class Tensor:
    name: bytes
    dims: list[int]  # the file's order: innermost first
    kind: int = 0
    data: bytes = b""
    offset: int | None = None
    rank: int | None = None
    name_length: int | None = None


@dataclass
class File:
    entries: list[Entry] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    entry_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32
    cut: int | None = None  # how many bytes to keep
    tail: bytes = b""
    flips: list[tuple[int, int]] = field(default_factory=list)  # (position, xor)

    def clone(self) -> "File":
        """A copy whose records may be edited."""
        entries = [replace(e, value=list(e.value) if isinstance(e.value, list) else e.value) for e in self.entries]
        return replace(self, entries=entries, tensors=[replace(t, dims=list(t.dims)) for t in self.tensors], flips=[])

    def get(self, key: str) -> Entry | None:
        return next((e for e in self.entries if e.key == key.encode()), None)

    def header(self) -> bytes:
        counts = (len(self.tensors) if self.tensor_count is None else self.tensor_count,
                  len(self.entries) if self.entry_count is None else self.entry_count)  # fmt: skip
        out = [self.magic, _word(self.version, 4), _word(counts[0], 8), _word(counts[1], 8)]
        out += [entry.encode() for entry in self.entries]
        offset = 0
        for t in self.tensors:
            out.append(text(t.name, t.name_length) + _word(len(t.dims) if t.rank is None else t.rank, 4))
            out += [_word(d, 8) for d in t.dims]
            out.append(_word(t.kind, 4) + _word(offset if t.offset is None else t.offset, 8))
            offset += len(t.data) + -len(t.data) % self.alignment
        return b"".join(out)

    def encode(self) -> bytes:
        header = self.header()
        out = [header, bytes(-len(header) % self.alignment)]
        out += [t.data + bytes(-len(t.data) % self.alignment) for t in self.tensors]
        data = bytearray(b"".join(out) + self.tail)
        for at, bits in self.flips:
            if data:
                data[at % len(data)] ^= bits
        return bytes(data if self.cut is None else data[: self.cut])


def tiny(tokenizer: str = "llama") -> File:
    """A llama of one layer (0.1 MB) with a vocabulary of 268 pieces, every metadata type, and tensors F32 and Q8_0."""
    rng = np.random.default_rng(7)
    dim, ffn, heads, kv = 32, 64, 4, 2
    pieces = [b"<unk>", b"<s>", b"</s>"]
    if tokenizer == "llama":
        pieces += [b"<0x%02X>" % i for i in range(256)] + ["▁".encode(), b"a", b"b", b"ab", b"\xc3"]
    else:
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = sorted(set(range(256)) - set(shown))
        table = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
        pieces += [table[i].encode() for i in range(256)] + [b"ab", b"abc"]
    vocab = len(pieces)
    kinds = [2, 3, 3] + ([6] * 256 + [1] * (vocab - 259) if tokenizer == "llama" else [1] * (vocab - 3))

    def strings(key: str, values: Sequence[bytes]) -> Entry:
        return Entry(key.encode(), ARRAY, list(values), STRING)

    file = File([
        Entry(b"general.architecture", STRING, b"llama"),
        Entry(b"general.name", STRING, b"tiny"),
        Entry(b"general.alignment", U32, 32),
        Entry(b"llama.context_length", U32, 128),
        Entry(b"llama.embedding_length", U32, dim),
        Entry(b"llama.block_count", U32, 1),
        Entry(b"llama.feed_forward_length", U32, ffn),
        Entry(b"llama.attention.head_count", U32, heads),
        Entry(b"llama.attention.head_count_kv", U32, kv),
        Entry(b"llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        Entry(b"llama.rope.dimension_count", U32, dim // heads),
        Entry(b"llama.rope.freq_base", F32, 1e4),
        Entry(b"llama.vocab_size", U32, vocab),
        Entry(b"tokenizer.ggml.model", STRING, tokenizer.encode()),
        strings("tokenizer.ggml.tokens", pieces),
        Entry(b"tokenizer.ggml.scores", ARRAY, [float(-i) for i in range(vocab)], F32),
        Entry(b"tokenizer.ggml.token_type", ARRAY, kinds, I32),
        Entry(b"tokenizer.ggml.bos_token_id", U32, 1),
        Entry(b"tokenizer.ggml.eos_token_id", U32, 2),
        Entry(b"tokenizer.ggml.unknown_token_id", U32, 0),
        Entry(b"tokenizer.ggml.add_bos_token", BOOL, 1),
        Entry(b"tokenizer.chat_template", STRING, b"{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    ])  # fmt: skip
    if tokenizer == "gpt2":
        file.entries += [strings("tokenizer.ggml.merges", [b"a b", b"ab c"]),
                         Entry(b"tokenizer.ggml.pre", STRING, b"gpt-2")]  # fmt: skip
    for kind in (U8, I8, U16, I16, U64, I64, F64):
        file.entries.append(Entry(b"extra.t%d" % kind, kind, 1))
        file.entries.append(Entry(b"extra.a%d" % kind, ARRAY, [0, 1, 2], kind))
    file.entries.append(Entry(b"extra.nested", ARRAY, [], ARRAY, count=2, raw=None))
    file.entries[-1].raw = _word(ARRAY, 4) + _word(2, 8) + 2 * (_word(U8, 4) + _word(2, 8) + b"\1\2")

    def add(name: str, *shape: int, q8: bool = False) -> None:
        values = (rng.standard_normal(shape) * 0.1).astype("<f4")
        data = values.tobytes()
        if q8:
            blocks = values.reshape(-1, 32)
            scale = (np.abs(blocks).max(axis=1) / 127).astype("<f2")
            whole = np.clip(np.rint(blocks / scale[:, None].astype("f4")), -127, 127).astype("i1")
            data = b"".join(s.tobytes() + q.tobytes() for s, q in zip(scale, whole, strict=True))
        file.tensors.append(Tensor(name.encode(), list(reversed(shape)), 8 if q8 else 0, data))

    add("token_embd.weight", vocab, dim, q8=True)
    add("output_norm.weight", dim)
    for name, shape in {
        "attn_norm": (dim,), "ffn_norm": (dim,), "attn_q": (dim, dim), "attn_k": (dim // heads * kv, dim),
        "attn_v": (dim // heads * kv, dim), "attn_output": (dim, dim), "ffn_gate": (ffn, dim), "ffn_up": (ffn, dim),
        "ffn_down": (dim, ffn),
    }.items():  # fmt: skip
        add(f"blk.0.{name}.weight", *shape, q8=name.startswith("ffn_") and len(shape) == 2)
    return file


def _extreme(rng: random.Random) -> int:
    return rng.choice(EXTREMES)


def _any_value(rng: random.Random, kind: int) -> Any:
    if kind == STRING:
        noise = rng.randbytes(rng.randrange(20))
        return rng.choice([b"", b"\xff\xfe", b"A" * rng.choice([1, 70, 4096]), noise, b"{{" * 9])
    if kind in (F32, F64):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e38, 1e-45, 0.5])
    return rng.choice([-1, *EXTREMES])


def _value(file: File, rng: random.Random) -> None:
    entry = rng.choice(file.entries)
    if entry.kind == ARRAY and isinstance(entry.value, list) and entry.value:
        for _ in range(rng.choice([1, 1, 5])):
            entry.value[rng.randrange(len(entry.value))] = _any_value(rng, entry.element)
    else:
        entry.value, entry.raw = _any_value(rng, entry.kind), None


def _retype(file: File, rng: random.Random) -> None:
    """The key keeps its name and gets another type, properly encoded: scalar or array of any of the 13."""
    entry = rng.choice(file.entries)
    entry.raw, entry.element = None, rng.choice([*PACK, STRING])
    entry.kind = rng.choice([ARRAY, entry.element])
    values = [_any_value(rng, entry.element) for _ in range(rng.choice([0, 1, 3, 300]))]
    entry.value = values if entry.kind == ARRAY else _any_value(rng, entry.element)


def _mislabel(file: File, rng: random.Random) -> None:
    """The type word changes and the bytes do not."""
    entry = rng.choice(file.entries)
    if entry.kind == ARRAY and rng.random() < 0.5:
        body = entry.encode()[8 + len(entry.key) + 4 + 4 :]
        entry.raw = _word(rng.choice([*range(14), 99, 2**31]), 4) + body
    else:
        entry.raw = entry.encode()[8 + len(entry.key) + 4 :] if entry.key_length is None else entry.raw
        entry.kind = rng.choice([*range(14), 99, 2**32 - 1])


def _lengths(file: File, rng: random.Random) -> None:
    entry = rng.choice(file.entries)
    near = rng.choice([_extreme(rng), len(entry.key) + rng.choice([-1, 1])])
    if entry.kind == ARRAY:
        true = len(entry.value) if isinstance(entry.value, list) else 0
        entry.count = rng.choice([_extreme(rng), max(0, true + rng.choice([-1, 1, 2]))])
    elif entry.kind == STRING and rng.random() < 0.6:
        entry.length = _extreme(rng)
    else:
        entry.key_length = near


def _counts(file: File, rng: random.Random) -> None:
    if rng.random() < 0.5:
        file.entry_count = rng.choice([_extreme(rng), len(file.entries) + rng.choice([-1, 1])])
    else:
        file.tensor_count = rng.choice([_extreme(rng), len(file.tensors) + rng.choice([-1, 1])])


def _dims(file: File, rng: random.Random) -> None:
    tensor = rng.choice(file.tensors)
    for _ in range(rng.choice([1, 1, 2])):  # pairs whose product wraps
        if tensor.dims:
            at = rng.randrange(len(tensor.dims))
            tensor.dims[at] = rng.choice([_extreme(rng), tensor.dims[at] + rng.choice([-1, 1, 32, -32])]) & _M64
    if rng.random() < 0.2:
        tensor.dims = [rng.choice([1, 2, *EXTREMES]) for _ in range(rng.randrange(7))]
    if rng.random() < 0.1:
        tensor.rank = _extreme(rng)


def _tensor(file: File, rng: random.Random) -> None:
    tensor, other = rng.choice(file.tensors), rng.choice(file.tensors)
    match rng.randrange(6):
        case 0:
            tensor.kind = rng.choice([*range(45), 2**31, 2**32 - 1])
        case 1:
            tensor.offset = rng.choice([_extreme(rng), 32, 64, 2**64 - 64, 1])
        case 2:
            tensor.name = rng.choice([other.name, b"", b"\xff", b"x" * 100, b"blk.99.attn_q.weight", b"a\0b"])
        case 3:
            tensor.name_length = rng.choice([_extreme(rng), len(tensor.name) + rng.choice([-1, 1])])
        case 4:
            tensor.data = rng.choice([b"", tensor.data[:-1], tensor.data + bytes(32), rng.randbytes(len(tensor.data))])
        case _:
            file.tensors.remove(tensor)


def _keys(file: File, rng: random.Random) -> None:
    entry, other = rng.choice(file.entries), rng.choice(file.entries)
    match rng.randrange(5):
        case 0:
            file.entries.remove(entry)
        case 1:
            entry.key = other.key
        case 2:
            entry.key = rng.choice([b"", b"\xff\xfe", b"k" * 70000, b"general.alignment", b"split.count", b"split.no"])
        case 3:
            file.entries.append(Entry(b"extra.deep", ARRAY, [], raw=_nested(rng)))
        case _:
            rng.shuffle(file.entries)


def _nested(rng: random.Random) -> bytes:
    """Arrays in arrays: deep, or wide and empty."""
    if rng.random() < 0.5:
        depth = rng.choice([2, 4, 5, 6, 100, 5000])
        return (_word(ARRAY, 4) + _word(1, 8)) * depth + _word(U8, 4) + _word(1, 8) + b"\0"
    wide = rng.choice([10, 1000, 70000])
    return _word(ARRAY, 4) + _word(wide, 8) + (_word(rng.choice([U8, STRING, BOOL]), 4) + _word(0, 8)) * wide


def _many(file: File, rng: random.Random) -> None:
    """Cheap in the file, dear in memory: very many empty or one-byte strings, keys or numbers."""
    count = rng.choice([1000, 50000, 200000])
    one = rng.choice([text(b""), text(b"a"), text(b"\xff"), text(b"ab")])
    body = _word(STRING, 4) + _word(count, 8) + one * count
    if rng.random() < 0.5:
        body = _word(U8, 4) + _word(8 * count, 8) + bytes(8 * count)
    names = ["tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores", "extra.a0"]
    target = file.get(rng.choice(names))
    if target is not None and rng.random() < 0.7:
        target.kind, target.raw = ARRAY, body
    else:
        file.entries.append(Entry(b"extra.many", ARRAY, [], raw=body))


def _whole(file: File, rng: random.Random) -> None:
    match rng.randrange(6):
        case 0:
            file.version = rng.choice([0, 1, 2, 4, 99, 3 << 24, 2**31])
        case 1:
            file.magic = rng.choice([b"FUGG", b"ggml", b"\0\0\0\0", b"GGU"])
        case 2:
            file.cut = rng.randrange(len(file.encode()) + 1)
        case 3:
            file.tail = bytes(rng.choice([1, 31, 32, 4096]))
        case 4:
            entry = file.get("general.alignment")
            file.alignment = 1 << rng.randrange(12)
            if entry is not None:
                entry.value = rng.choice([file.alignment, file.alignment, *EXTREMES])
        case _:
            header = len(file.header())
            file.flips = [(rng.randrange(header), 1 << rng.randrange(8)) for _ in range(rng.choice([1, 2, 8]))]


MUTATORS: tuple[tuple[int, Callable[[File, random.Random], None]], ...] = (
    (5, _value), (5, _retype), (3, _mislabel), (4, _lengths), (3, _counts), (5, _dims), (5, _tensor), (3, _keys),
    (1, _many), (4, _whole),
)  # fmt: skip


_tiny = functools.cache(tiny)


def mutant(rng: random.Random) -> bytes:
    """A tiny model with one to three fields changed."""
    file = _tiny(rng.choice(["llama", "gpt2"])).clone()
    weights, changes = zip(*MUTATORS, strict=True)
    for _ in range(rng.randrange(1, 4)):
        change = rng.choices(changes, weights)[0]
        if file.tensors and file.entries:
            change(file, rng)
    return file.encode()
