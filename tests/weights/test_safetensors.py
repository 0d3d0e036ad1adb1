"""safetensors against the `safetensors` package as an oracle, and each kind of broken file as a typed error."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.testing.mutate import safetensors as records
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

from .conftest import safetensors_bytes, write_hf

pytestmark = pytest.mark.native


def with_bytes(folder: Path, data: bytes) -> Path:
    write_hf(folder)
    (folder / "model.safetensors").write_bytes(data)
    return folder


def test_every_dtype_the_oracle_writes(tmp_path: Path) -> None:
    write_hf(tmp_path)
    kinds = ("f4", "f2", "f8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
    arrays = {f"t.{k}": np.arange(6).reshape(1, 2, 3).astype(k) for k in kinds}
    arrays |= {"empty": np.zeros((0, 5), "f4"), "scalar": np.array(3.5, "f4")}
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "np", "é": "\n"})
    ours = open_checkpoint(tmp_path)
    assert sorted(ours.names()) == sorted(arrays)
    source = SOURCES.build("file", files=ours.header().files)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as theirs:
        for name, values in arrays.items():
            info = ours.info(name)
            assert (info.format, list(info.shape)) == (
                theirs.get_slice(name).get_dtype(),
                theirs.get_slice(name).get_shape(),
            )
            assert bytes(source.read(info.extent, 0, info.extent.nbytes)) == values.tobytes()
    source.close()


def test_formats_that_nobody_computes_are_still_named(tmp_path: Path) -> None:
    header, at = {}, 0
    for dtype, bits in {"BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "C64": 64}.items():
        header[dtype] = {"dtype": dtype, "shape": [2, 2], "data_offsets": [at, at + bits // 2]}
        at += bits // 2
    checkpoint = open_checkpoint(with_bytes(tmp_path, safetensors_bytes(header, bytes(at))))
    assert {n: checkpoint.info(n).format for n in header} == {n: n for n in header}


W = '"dtype":"F32","shape":[2,3],"data_offsets":[0,24]'  # stands for <W> below
CLASSES = {
    "a duplicate tensor": ('{"w":{<W>},"w":{<W>}}', 24, "'w' appears twice"),
    "a duplicate field": ('{"w":{"dtype":"F32",<W>}}', 24, "'dtype' appears twice"),
    "a duplicate through an escape": ('{"w":{<W>},"\\u0077":{<W>}}', 24, "'w' appears twice"),
    "trailing bytes": ('{"w":{<W>}}', 25, "appended"),
    "only metadata and bytes": ('{"__metadata__":{}}', 1, "appended"),
    "a hole": ('{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8, "hole"),
    "an overlap": (
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        12,
        "overlap",
    ),
    "an end before the beginning": ('{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', 4, "ends before"),
    "bytes that do not fit the shape": ('{"w":{"dtype":"F32","shape":[7],"data_offsets":[0,24]}}', 24, "28 bytes.*24"),
    "half a byte": ('{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', 1, "takes 1 bytes|takes"),
    "a shape that wraps": ('{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', 0, "2\\^64"),
    "a shape of 2^63": ('{"w":{"dtype":"I8","shape":[0,9223372036854775808],"data_offsets":[0,0]}}', 0, "whole number"),
    "data cut short": ('{"w":{<W>}}', 23, r"ends at byte \d+ but the file has \d+.*truncated"),
    "a number with an exponent": ('{"w":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', 4, "whole number"),
    "a number with a point": ('{"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', 4, "whole number"),
    "a negative number": ('{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4, "whole number"),
    "a number as text": ('{"w":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}', 4, "whole number"),
    "three offsets": ('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}', 4, "at most 2"),
    "one offset": ('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', 4, "lacks"),
    "no shape": ('{"w":{"dtype":"F32","data_offsets":[0,4]}}', 4, "lacks"),
    "an unknown field": ('{"w":{<W>,"x":1}}', 24, "unknown key 'x'"),
    "metadata that is a number": ('{"__metadata__":{"a":1},"w":{<W>}}', 24, "must be a string"),
    "metadata that is a list": ('{"__metadata__":[],"w":{<W>}}', 24, "must be an object"),
    "a tensor that is a list": ('{"w":[]}', 0, "must be an object"),
    "a list": ("[]", 0, "does not start with '{'"),
    "white space first": (" {}", 0, "does not start with '{'"),
    "deep": ('{"w":' * 100000, 0, "JSON"),
    "not UTF-8": (b'{"\xff":{}}', 0, "UTF-8"),
    "half a surrogate": ('{"\\ud800":{}}', 0, "surrogate"),
    "two values": ("{}{}", 0, "follows"),
    "NaN": ('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', 4, "whole number"),
    "cut JSON": ('{"w":{"dtype":"F32"', 0, "cut short"),
    "NUL bytes as padding": ("{}\0\0", 0, "follows"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_kind_of_broken_file_is_a_typed_error(tmp_path: Path, name: str) -> None:
    header, nbytes, sentence = CLASSES[name]
    header = header.replace("<W>", W) if isinstance(header, str) else header
    folder = with_bytes(tmp_path, safetensors_bytes(header, bytes(nbytes)))
    with pytest.raises(BadInput, match=sentence) as caught:
        open_checkpoint(folder)
    assert str(caught.value).startswith(str(folder / "model.safetensors"))


def test_an_unknown_dtype_is_unsupported(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}
    with pytest.raises(Unsupported, match="'F3'"):
        open_checkpoint(with_bytes(tmp_path, safetensors_bytes(header, bytes(4))))


@pytest.mark.parametrize("length", [0, 1, 9, 10**8, 10**8 + 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_header_length_that_lies(tmp_path: Path, length: int) -> None:
    with pytest.raises(BadInput):
        open_checkpoint(with_bytes(tmp_path, length.to_bytes(8, "little") + b"{}"))


@pytest.mark.parametrize("nbytes", range(8))
def test_a_file_of_a_few_bytes(tmp_path: Path, nbytes: int) -> None:
    with pytest.raises(BadInput, match="too few"):
        open_checkpoint(with_bytes(tmp_path, bytes(nbytes)))


def test_an_empty_header_padded_with_spaces_is_a_file(tmp_path: Path) -> None:
    assert open_checkpoint(with_bytes(tmp_path, safetensors_bytes("{}      "))).names() == []


def test_whatever_we_accept_the_oracle_accepts_too(tmp_path: Path) -> None:
    """600 mutants: a file that only we open would be a polyglot in the making."""
    import random

    base = records.parse((write_hf(tmp_path) / "model.safetensors").read_bytes())
    accepted = 0
    for i in range(600):
        data = records.mutant(base, random.Random(i))
        (tmp_path / "model.safetensors").write_bytes(data)
        try:
            ours = open_checkpoint(tmp_path)
        except EdgewiseError:
            continue
        accepted += 1
        theirs = dict(safetensors.deserialize(data))
        assert sorted(theirs) == sorted(ours.names())
        for name, tensor in theirs.items():
            assert (list(ours.info(name).shape), ours.info(name).extent.nbytes) == (
                tensor["shape"],
                len(tensor["data"]),
            )
    assert accepted > 50


SHARDS = {"a": "one.safetensors", "b": "two.safetensors"}


def sharded(folder: Path, weight_map: object = None, **holds: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for file, names in (holds or {"one": ["a"], "two": ["b"]}).items():
        save_file({n: np.ones(2, "f4") for n in names}, folder / f"{file}.safetensors")
    index = {"weight_map": SHARDS if weight_map is None else weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_open(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sharded(tmp_path))
    assert sorted(checkpoint.names()) == ["a", "b"]
    assert [p.name for p in checkpoint.header().files] == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"a": "../one.safetensors"}, "plain name"),
        ({"a": "/etc/passwd"}, "plain name"),
        ({"a": "sub/one.safetensors"}, "plain name"),
        ({"a": "one.bin"}, "ever opened"),
        ({"a": "config.json"}, "not a safetensors file"),
        ({"a": "absent.safetensors"}, "no such file"),
        ({"a": "one.safetensors", "b": "one.safetensors"}, "'b' should be in one.safetensors but no file has it"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "should be in two.safetensors but it is in one"),
        ({"a": 7}, "weight_map must be"),
        (["a"], "weight_map must be"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: object, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        open_checkpoint(sharded(tmp_path, weight_map))


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="also in another file"):
        open_checkpoint(sharded(tmp_path, one=["a"], two=["a", "b"]))
