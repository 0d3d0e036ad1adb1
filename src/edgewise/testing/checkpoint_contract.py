"""What every checkpoint format must do. Subclass in a test file and implement `make`."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgewise.base import BadInput, EdgewiseError
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

TENSORS: Mapping[str, npt.NDArray[np.float32]] = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4),
    "c.bias": np.array([np.inf, -0.0, 1e-45], np.float32),
}


class CheckpointContract:
    """make(folder) writes TENSORS as float32 and returns the path that a user would type."""

    def make(self, folder: Path) -> Path:
        raise NotImplementedError

    def test_names_shapes_and_bytes(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(self.make(tmp_path))
        assert sorted(checkpoint.names()) == sorted(TENSORS)
        source = SOURCES.build("file", files=checkpoint.header().files)
        for name, values in TENSORS.items():
            info = checkpoint.info(name)
            assert (info.name, info.shape, info.format) == (name, values.shape, "F32")
            assert bytes(source.read(info.extent, 0, info.extent.nbytes)) == values.tobytes()
        source.close()

    def test_any_part_of_a_tensor_reads_alone(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(self.make(tmp_path))
        source = SOURCES.build("file", files=checkpoint.header().files)
        extent, whole = checkpoint.info("b.weight").extent, TENSORS["b.weight"].tobytes()
        for offset, nbytes in ((0, 0), (0, 1), (4, 16), (255, 1), (256, 0)):
            assert bytes(source.read(extent, offset, nbytes)) == whole[offset : offset + nbytes]
        for offset, nbytes in ((0, 257), (256, 1), (-1, 1), (0, -1)):
            with pytest.raises(BadInput, match="outside"):
                source.read(extent, offset, nbytes)
        source.close()

    def test_extents_lie_in_their_files_and_apart(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(self.make(tmp_path))
        files = checkpoint.header().files
        extents = [checkpoint.info(name).extent for name in checkpoint.names()]
        for extent in extents:
            assert extent.offset + extent.nbytes <= files[extent.file].stat().st_size
        ends = sorted((e.file, e.offset, e.offset + e.nbytes) for e in extents)
        for (file, _, end), (next_file, start, _) in pairwise(ends):
            assert file != next_file or end <= start

    def test_the_header_says_what_it_is(self, tmp_path: Path) -> None:
        header = open_checkpoint(self.make(tmp_path)).header()
        assert header.dialect in ("hf", "gguf")
        assert header.architecture == "llama"
        assert header.name
        assert header.folder.is_dir()
        assert all(path.is_file() for path in header.files)

    def test_an_absent_tensor_names_the_nearest(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"a\.wait.*Did you mean 'a\.weight'"):
            open_checkpoint(self.make(tmp_path)).info("a.wait")

    def test_a_file_cut_short_never_opens(self, tmp_path: Path) -> None:
        path = self.make(tmp_path)
        for file in open_checkpoint(path).header().files:
            whole = file.read_bytes()
            for cut in {*range(0, len(whole), max(1, len(whole) // 97)), len(whole) - 1}:
                file.write_bytes(whole[:cut])
                with pytest.raises(EdgewiseError):
                    open_checkpoint(path)
            file.write_bytes(whole)
        open_checkpoint(path)

    def test_a_file_that_shrinks_after_opening_is_an_error_at_the_read(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(self.make(tmp_path))
        extent = checkpoint.info("b.weight").extent
        source = SOURCES.build("file", files=checkpoint.header().files)
        source.read(extent, 0, extent.nbytes)
        path = checkpoint.header().files[extent.file]
        path.write_bytes(path.read_bytes()[: extent.offset + 7])
        assert len(source.read(extent, 0, 7)) == 7
        with pytest.raises(BadInput, match=f"{path.name}.*{extent.offset}.*shrank"):
            source.read(extent, 0, extent.nbytes)
        source.close()
