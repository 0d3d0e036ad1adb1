"""GGUF against the `gguf` package as an oracle, and each kind of broken file as a typed error with a sentence."""

import struct
from pathlib import Path

import gguf as oracle
import numpy as np
import pytest

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.kernels.parsing import Strings, gguf_formats
from edgewise.testing.mutate import gguf
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

pytestmark = pytest.mark.native
VALUES = oracle.GGUFValueType


def as_path(folder: Path, file: gguf.File | bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(file if isinstance(file, bytes) else file.encode())
    return path


def test_block_sizes_are_the_oracles() -> None:
    ours = gguf_formats()
    for kind, (block, nbytes) in oracle.GGML_QUANT_SIZES.items():
        assert ours[kind.name] == (kind.value, block, nbytes)
    assert len(ours) == len(oracle.GGML_QUANT_SIZES)


def test_every_metadata_type_reads_as_the_oracle_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = oracle.GGUFWriter(path, "llama")
    scalars = {
        "u8": (VALUES.UINT8, 255), "i8": (VALUES.INT8, -128), "u16": (VALUES.UINT16, 65535), "i16": (VALUES.INT16, -5),
        "u32": (VALUES.UINT32, 2**32 - 1), "i32": (VALUES.INT32, -(2**31)), "u64": (VALUES.UINT64, 2**64 - 1),
        "i64": (VALUES.INT64, -(2**63)), "f32": (VALUES.FLOAT32, 0.5), "f64": (VALUES.FLOAT64, 1e300),
        "yes": (VALUES.BOOL, True), "no": (VALUES.BOOL, False), "text": (VALUES.STRING, "naïve \U0001f600"),
    }  # fmt: skip
    for key, (kind, value) in scalars.items():
        writer.add_key_value(key, value, kind)
    arrays = {
        "ints": [1, 2, 3],
        "floats": [0.5, -1.5],
        "words": ["", "a", "é\U0001f600", "a\0b"],
        "bools": [True, False],
    }
    for key, values in arrays.items():
        writer.add_array(key, values)
    writer.add_key_value("bytes", b"\0\1\xff", VALUES.ARRAY, sub_type=VALUES.UINT8)
    writer.add_array("nested", [[1, 2], [3]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config = open_checkpoint(path).header().config
    for key, (_, value) in scalars.items():
        assert config[key] == value
        assert type(config[key]) is type(value)
    for key, values in arrays.items():
        assert list(config[key]) == values
    assert config["bytes"].dtype == np.uint8
    assert config["bytes"].tolist() == [0, 1, 255]
    assert [x.tolist() for x in config["nested"]] == [[1, 2], [3]]
    assert isinstance(config["words"], Strings)
    for field in oracle.GGUFReader(path).fields.values():
        if not field.name.startswith("GGUF.") and field.name != "nested":
            ours = config[field.name]
            assert (list(ours) if isinstance(ours, (Strings, np.ndarray)) else ours) == field.contents()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tensors_lie_where_the_oracle_finds_them(tmp_path: Path, kind: str) -> None:
    path = as_path(tmp_path, gguf.tiny(kind))
    ours, reader = open_checkpoint(path), oracle.GGUFReader(path)
    assert list(ours.names()) == [t.name for t in reader.tensors]
    source = SOURCES.build("file", files=ours.header().files)
    for theirs in reader.tensors:
        info = ours.info(theirs.name)
        assert info.format == theirs.tensor_type.name
        assert info.shape == tuple(reversed([int(d) for d in theirs.shape]))
        assert (info.extent.offset, info.extent.nbytes) == (theirs.data_offset, theirs.n_bytes)
        assert bytes(source.read(info.extent, 0, info.extent.nbytes)) == theirs.data.tobytes()
    source.close()


def test_a_file_of_version_2_without_tensors_is_a_vocabulary(tmp_path: Path) -> None:
    file = gguf.tiny()
    file.tensors, file.version = [], 2
    checkpoint = open_checkpoint(as_path(tmp_path, file))
    assert len(checkpoint.header().config["tokenizer.ggml.tokens"]) == 264
    with pytest.raises(BadInput, match="only a vocabulary"):
        checkpoint.info("token_embd.weight")


def test_pieces_that_are_not_utf8_survive_the_round_trip(tmp_path: Path) -> None:
    file = gguf.tiny()
    pieces = [b"\xff\xfe", b"a", b"", "é".encode(), b"\xe2\x82"]
    file.entries = [e for e in file.entries if e.key != b"tokenizer.ggml.tokens"]
    file.entries.append(gguf.Entry(b"tokenizer.ggml.tokens", gguf.ARRAY, pieces, gguf.STRING))
    tokens = open_checkpoint(as_path(tmp_path, file)).header().config["tokenizer.ggml.tokens"]
    assert [t.encode("utf-8", "surrogateescape") for t in tokens] == pieces
    assert [tokens.raw(i) for i in range(len(tokens))] == pieces
    assert tokens[-1] == tokens[4] == "\udce2\udc82"
    assert tokens[1:3] == ["a", ""]
    assert tokens == list(tokens)
    assert tokens != list(tokens)[:-1]
    with pytest.raises(IndexError):
        tokens[5]


def test_a_missing_tensor_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"Did you mean 'blk.0.attn_q.weight'"):
        open_checkpoint(as_path(tmp_path, gguf.tiny())).info("blk.0.attn_qq.weight")


def broken(change) -> gguf.File:
    file = gguf.tiny()
    result = change(file)
    return file if result is None else result


def entry(of: str, **fields):
    def change(file: gguf.File) -> None:
        found = file.get(of)
        for name, value in fields.items():
            setattr(found, name, value)

    return change


def tensor(index: int, **fields):
    def change(file: gguf.File) -> None:
        for name, value in fields.items():
            setattr(file.tensors[index], name, value)

    return change


CLASSES = {
    "magic": (lambda f: setattr(f, "magic", b"GGML"), BadInput, "does not start with 'GGUF'"),
    "version 1": (lambda f: setattr(f, "version", 1), Unsupported, "version 1"),
    "big endian": (lambda f: setattr(f, "version", 3 << 24), Unsupported, "big-endian"),
    "keys beyond the file": (lambda f: setattr(f, "entry_count", 2**63), BadInput, "metadata keys"),
    "tensors beyond the file": (lambda f: setattr(f, "tensor_count", 2**62), BadInput, "tensors, more than"),
    "a string of a terabyte": (entry("general.name", length=2**40), BadInput, "'general.name'.*needs 1099511627776"),
    "an array of 2^40 strings": (entry("tokenizer.ggml.tokens", count=2**40), BadInput, "promises 1099511627776"),
    "an array whose bytes wrap": (entry("tokenizer.ggml.scores", count=2**62 + 1), BadInput, "promises"),
    "an unknown type": (entry("general.name", kind=13), BadInput, "type 13 does not exist"),
    "an unknown array type": (entry("tokenizer.ggml.scores", element=77), BadInput, "array type 77"),
    "a truth value of 2": (entry("tokenizer.ggml.add_bos_token", value=2), BadInput, "neither 0 nor 1"),
    "an alignment of 2^31": (entry("general.alignment", value=2**31), BadInput, "power of two"),
    "an alignment of 0": (entry("general.alignment", value=0), BadInput, "power of two"),
    "an alignment of 48": (entry("general.alignment", value=48), BadInput, "power of two"),
    "an alignment that is text": (entry("general.alignment", kind=gguf.STRING, value=b"32"), BadInput, "32-bit number"),
    "the same key twice": (entry("general.name", key=b"llama.vocab_size", kind=gguf.U32, value=1), BadInput, "twice"),
    "a key that is not UTF-8": (entry("general.name", key=b"\xff"), BadInput, "not UTF-8"),
    "no architecture": (entry("general.architecture", key=b"general.type"), BadInput, "general.architecture"),
    "an architecture that is no word": (
        entry("general.architecture", value=b"a b\xff"),
        BadInput,
        "general.architecture",
    ),
    "the same tensor twice": (tensor(1, name=b"token_embd.weight"), BadInput, "appears twice"),
    "five dimensions": (tensor(1, dims=[1] * 5), BadInput, "5 dimensions"),
    "a dimension of 0": (tensor(0, dims=[32, 0]), BadInput, "dimension of 0"),
    "dimensions that wrap": (tensor(0, dims=[2**32, 2**32]), BadInput, r"2\^63"),
    "rows of 2^42 + 1": (tensor(0, dims=[32, 2**42 + 1]), BadInput, "truncated"),
    "bytes that wrap": (tensor(1, dims=[2**61, 3]), BadInput, r"2\^6[34]"),
    "columns that split a block": (tensor(0, dims=[31, 8]), BadInput, "multiple of 32"),
    "a removed type": (tensor(0, kind=4), Unsupported, "type 4"),
    "an offset that wraps": (tensor(0, offset=2**64 - 32), BadInput, r"2\^64"),
    "an offset off the grid": (tensor(0, offset=1), BadInput, "multiple of the alignment"),
    "two tensors in one place": (tensor(1, offset=0), BadInput, "overlap"),
    "a tensor behind the end": (tensor(1, offset=1 << 20), BadInput, r"ends at byte \d+ but the file has \d+"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_kind_of_broken_file_is_a_typed_error(tmp_path: Path, name: str) -> None:
    change, kind, sentence = CLASSES[name]
    path = as_path(tmp_path, broken(change))
    with pytest.raises(kind, match=sentence) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("depth", [4, 5, 100000])
def test_arrays_nest_to_a_limit(tmp_path: Path, depth: int) -> None:
    file = gguf.tiny()
    level = struct.pack("<IQ", gguf.ARRAY, 1)
    body = level * (depth - 1) + struct.pack("<IQ", gguf.U8, 1) + b"\7"
    file.entries.append(gguf.Entry(b"deep", gguf.ARRAY, [], raw=body))
    path = as_path(tmp_path, file)
    if depth > 4:
        with pytest.raises(BadInput, match="deeper than 4"):
            open_checkpoint(path)
    else:
        value = open_checkpoint(path).header().config["deep"]
        for _ in range(depth - 1):
            (value,) = value
        assert value.tolist() == [7]


@pytest.mark.parametrize("kind", [*sorted(gguf.PACK), gguf.STRING])
@pytest.mark.parametrize("array", [False, True])
def test_the_architecture_of_another_type_is_refused(tmp_path: Path, kind: int, array: bool) -> None:
    """Type confusion (llama.cpp#26690): a key is believed to be what its reader wants."""
    if kind == gguf.STRING and not array:
        return
    file = gguf.tiny()
    found = file.get("general.architecture")
    found.kind, found.element, found.value = (gguf.ARRAY, kind, [b"1"]) if array else (kind, 0, 1)
    with pytest.raises(EdgewiseError, match=r"general\.architecture"):
        open_checkpoint(as_path(tmp_path, file))


def split(folder: Path, parts: int = 2) -> list[Path]:
    whole, paths = gguf.tiny(), []
    for part in range(parts):
        file = gguf.tiny() if part == 0 else gguf.File([whole.entries[0], whole.entries[2]])
        file.tensors = whole.tensors[part::parts]
        file.entries += [gguf.Entry(b"split.no", gguf.U16, part), gguf.Entry(b"split.count", gguf.U16, parts)]
        paths.append(folder / f"m-{part + 1:05d}-of-{parts:05d}.gguf")
        paths[-1].write_bytes(file.encode())
    return paths


def test_a_split_set_opens_by_any_part_and_by_its_folder(tmp_path: Path) -> None:
    paths = split(tmp_path)
    (tmp_path / "one").mkdir()
    single = open_checkpoint(as_path(tmp_path / "one", gguf.tiny()))
    read = []
    for path in (*paths, tmp_path):
        checkpoint = open_checkpoint(path)
        assert sorted(checkpoint.names()) == sorted(single.names())
        read.append([_bytes(checkpoint, name) for name in single.names()])
    assert read[0] == read[1] == read[2] == [_bytes(single, name) for name in single.names()]


def _bytes(checkpoint, name: str) -> bytes:
    extent = checkpoint.info(name).extent
    source = SOURCES.build("file", files=checkpoint.header().files)
    try:
        return bytes(source.read(extent, 0, extent.nbytes))
    finally:
        source.close()


def test_a_split_set_with_a_missing_or_renamed_part_is_refused(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    second.rename(tmp_path / "away")
    with pytest.raises(BadInput, match=r"00002-of-00002.*no such file"):
        open_checkpoint(first)
    second.write_bytes(first.read_bytes())
    with pytest.raises(BadInput, match="its name says part 1 of 2"):
        open_checkpoint(first)
    with pytest.raises(BadInput, match="part 0 of 1, its metadata part 0 of 2"):
        open_checkpoint(first.rename(tmp_path / "alone.gguf"))


def test_a_header_larger_than_the_first_window_is_read(tmp_path: Path) -> None:
    file = gguf.tiny()
    words = [b"word%d" % i for i in range(200000)]
    file.entries.append(gguf.Entry(b"extra.words", gguf.ARRAY, words, gguf.STRING))
    path = as_path(tmp_path, file)
    assert path.stat().st_size > 3 << 20
    found = open_checkpoint(path).header().config["extra.words"]
    assert list(found) == [w.decode() for w in words]
    assert found[123456] == "word123456"
