"""The two writers against the reference readers, and outputs that are whole or absent."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.base import BadInput, OutOfRoom, Unsupported
from edgewise.convert import outputs
from edgewise.convert.gguf_writer import NewTensor, gguf_bytes, write_gguf
from edgewise.convert.outputs import check_output, new_file, new_folder
from edgewise.convert.rows import GatheredRows, constant, values
from edgewise.convert.safetensors_writer import write_safetensors
from edgewise.kernels import formats
from edgewise.weights import open_checkpoint

gguf = pytest.importorskip("gguf")
safetensors_numpy = pytest.importorskip("safetensors.numpy")
pytestmark = pytest.mark.native


def tensor(name, array, fmt="F32"):
    packed = formats.quantize(fmt, array)
    return NewTensor(name, array.shape, fmt, lambda: iter([packed[: len(packed) // 2], packed[len(packed) // 2 :]]))


VALUES = st.one_of(
    st.booleans(), st.integers(-(2**31), 2**40), st.floats(width=32, allow_nan=False), st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=5), st.lists(st.integers(-100, 2**33), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z]{1,8}", fullmatch=True), VALUES, max_size=6))
def test_metadata_comes_back(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("g") / "m.gguf"
    metadata = {"general.architecture": "llama", **metadata}
    with new_file(path) as file:
        write_gguf(file, metadata, [])
    assert path.stat().st_size == gguf_bytes(metadata, [])
    reader = gguf.GGUFReader(path)
    ours = open_checkpoint(path).header().config
    for key, value in metadata.items():
        assert reader.get_field(key).contents() == value
        assert list(ours[key]) == list(value) if isinstance(value, list) else ours[key] == value


def test_tensors_come_back(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"t0": (3, 64), "t1": (7,), "t2": (2, 5, 32)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    kinds = {"t0": "Q4_0", "t1": "F32", "t2": "Q8_0"}
    path, seen = tmp_path / "m.gguf", []
    new = [tensor(name, array, kinds[name]) for name, array in arrays.items()]
    with new_file(path) as file:
        write_gguf(file, {"general.architecture": "llama"}, new, seen.append)
    assert sum(seen) == sum(t.nbytes for t in new)
    for found in gguf.GGUFReader(path).tensors:
        kind = gguf.GGMLQuantizationType[kinds[found.name]]
        assert found.tensor_type == kind
        expected = gguf.quants.dequantize(gguf.quants.quantize(arrays[found.name], kind), kind)
        np.testing.assert_array_equal(gguf.quants.dequantize(found.data, kind).reshape(expected.shape), expected)


def test_what_gguf_cannot_hold_is_refused(tmp_path):
    for metadata in ({"a.b": None}, {"a.b": 2**70}, {"a.b": np.complex64(1)}, {"a.b": object()}):
        with pytest.raises(BadInput, match=r"a\.b"):
            gguf_bytes(metadata, [])
    with pytest.raises(BadInput, match="longer than 63"):
        gguf_bytes({}, [tensor("n" * 64, np.zeros(1, np.float32))])
    short = NewTensor("t", (4,), "F32", lambda: iter([np.zeros(4, np.uint8)]))
    with pytest.raises(BadInput, match="came to 4 bytes but needs 16"), new_file(tmp_path / "x.gguf") as file:
        write_gguf(file, {}, [short])
    assert list(tmp_path.iterdir()) == []


def test_safetensors_come_back_whole_and_in_shards(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {f"t{i}": rng.standard_normal((4, 8)).astype(np.float32) for i in range(5)}
    new = [tensor(name, array) for name, array in arrays.items()]
    assert [p.name for p in write_safetensors(tmp_path, new)] == ["model.safetensors"]
    for name, array in safetensors_numpy.load_file(tmp_path / "model.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name])
    (header,) = struct.unpack("<Q", (tmp_path / "model.safetensors").read_bytes()[:8])
    assert header % 8 == 0
    shards = tmp_path / "shards"
    shards.mkdir()
    paths = write_safetensors(shards, new, shard_bytes=256)
    assert len(paths) == 3
    (shards / "config.json").write_text('{"model_type": "llama"}')
    assert sorted(open_checkpoint(shards).names()) == sorted(arrays)
    with pytest.raises(Unsupported, match="cannot hold Q8_0"):
        write_safetensors(tmp_path, [tensor("t", np.zeros((1, 32), np.float32), "Q8_0")])


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_text("old")

    def half(error):
        with new_file(path) as file:
            file.write(b"half")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            half(error)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]
    with new_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "model"

    def half():
        with new_folder(path) as folder:
            (folder / "config.json").write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with new_folder(path) as folder:
            (folder / "config.json").write_text(text)
        assert (path / "config.json").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_not(tmp_path):
    file, folder = tmp_path / "x.gguf", tmp_path / "model"
    (tmp_path / ".x.gguf.abcd1234.part").write_bytes(b"half")
    (tmp_path / ".x.gguf.parts").mkdir()  # of the conversion that goes on
    (tmp_path / ".model.abcd1234.part").mkdir()
    (tmp_path / ".model.abcd1234.old").mkdir()
    (tmp_path / ".model.abcd1234.old" / "config.json").write_text("old")
    with new_file(file) as living:
        living.write(b"first")
        with new_file(file) as second:
            second.write(b"second")
        with pytest.raises(RuntimeError), new_folder(folder):
            raise RuntimeError
        assert (folder / "config.json").read_text() == "old"  # a kill between the two renames loses nothing
        with new_folder(folder) as fresh, new_folder(folder) as other:
            (fresh / "config.json").write_text("fresh")
            (other / "config.json").write_text("other")
    assert file.read_bytes() == b"first"
    assert (folder / "config.json").read_text() == "fresh"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.gguf.parts", "model", "x.gguf"]


def test_outputs_in_the_way(tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    check_output(file, 10, force=False, folder=False)
    file.write_text("")
    with pytest.raises(BadInput, match="--force"):
        check_output(file, 10, force=False, folder=False)
    check_output(file, 10, force=True, folder=False)
    with pytest.raises(BadInput, match="is a file"):
        check_output(file, 10, force=True, folder=True)
    with pytest.raises(BadInput, match="being read"):
        check_output(file, 10, force=True, folder=False, inputs=(file,))
    with pytest.raises(BadInput, match="being read"):
        check_output(tmp_path, 10, force=True, folder=True, inputs=(file,))
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("")
    with pytest.raises(BadInput, match=r"'thesis\.txt'"):
        check_output(home, 10, force=True, folder=True)
    with pytest.raises(BadInput, match="does not exist"):
        check_output(tmp_path / "no" / "x.gguf", 10, force=False, folder=False)
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutOfRoom, match=r"2\.00 GiB.*1\.00 GiB free"):
        check_output(tmp_path / "y.gguf", 2**31, force=False, folder=False)


def test_gathered_rows_are_the_rows():
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((rows, 32)).astype(np.float32) for rows in (50, 20))
    order = [np.array([49, 0, 7, 7, 8]), np.arange(20)[::-1].copy(), np.arange(3, 30)]
    parts = [(constant(a), order[0]), (constant(b), order[1]), (constant(a, "BF16"), order[2])]
    gathered = GatheredRows((52, 32), parts)
    assert gathered.format == "F32"  # mixed formats are widened
    rounded = formats.dequantize("BF16", formats.quantize("BF16", a), a.size).reshape(a.shape)
    expected = np.concatenate([a[order[0]], b[order[1]], rounded[order[2]]])
    np.testing.assert_array_equal(values(gathered, 0, 52), expected)
    for first, count in ((0, 1), (3, 4), (24, 20), (51, 1)):
        np.testing.assert_array_equal(values(gathered, first, count), expected[first : first + count])
