"""StreamedCheckpoint: names and shapes of its source; bundles on whole pages; no bytes where there are none."""

import pytest

from edgewise.base import BadInput
from edgewise.convert.streaming import convert_streamed
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Key
from edgewise.weights.checkpoints.streamed import PAGE, StreamedCheckpoint
from edgewise.weights.sources import SOURCES


def test_what_a_streamed_folder_says(tmp_path) -> None:
    model = tiny_model("olmoe", tmp_path / "model")
    convert_streamed(model, tmp_path / "out")
    plain, laid = open_checkpoint(model), open_checkpoint(tmp_path / "out")
    assert isinstance(laid, StreamedCheckpoint)
    assert set(laid.names()) == set(plain.names())
    assert all(laid.info(name).format == plain.info(name).format for name in plain.names())
    assert set(laid.layout) == {Key(layer, "expert", expert) for layer in range(2) for expert in range(5)}
    assert all(one.extent.offset % PAGE == one.extent.nbytes % PAGE == 0 for one in laid.layout.values())
    source = SOURCES.build("file", files=laid.header().files)
    expert = next(name for name in laid.names() if "experts" in name)
    with pytest.raises(BadInput, match="are wanted but the file has"):
        source.read(laid.info(expert).extent, 0, 4)
    source.close()
