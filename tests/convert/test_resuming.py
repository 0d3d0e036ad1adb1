"""A conversion that was killed goes on from the tensors it had finished, and ends with the very same file."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.convert.converting import convert
from edgewise.convert.parts import Parts
from edgewise.convert.quantisers.rtn import RtnQuantiser
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
TENSORS = 2 * 7 + 2  # of two layers, embedding and head
KILLED = """
import os, signal, sys
from pathlib import Path
from edgewise.convert.converting import convert
from edgewise.convert.quantisers.rtn import RtnQuantiser
plain, calls = RtnQuantiser.quantise, []
def quantise(self, *given):
    calls.append(given[0])
    if len(calls) > 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, *given)
RtnQuantiser.quantise = quantise
convert(Path(sys.argv[1]), Path(sys.argv[2]), quant="q4_0")
"""


@pytest.fixture
def calls(monkeypatch):
    """Names of the tensors that are quantised from now on."""
    plain, names = RtnQuantiser.quantise, []

    def quantise(self, name, rows, fmt, seen=None):
        names.append(name)
        return plain(self, name, rows, fmt, seen)

    monkeypatch.setattr(RtnQuantiser, "quantise", quantise)
    return names


def test_a_killed_conversion_goes_on(tmp_path, calls):
    folder, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "q.gguf"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], check=False, env=env())
    assert done.returncode == -9
    assert not out.exists()
    convert(folder, out, quant="q4_0")
    assert len(calls) == TENSORS - 6
    convert(folder, tmp_path / "whole.gguf", quant="q4_0")
    assert out.read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "q.gguf", "whole.gguf"]


def test_parts_of_another_source_or_quantiser_are_not_taken(tmp_path, calls):
    folder, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "q.gguf"
    subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], check=False, env=env())
    convert(folder, out, quant="q4_0", quantiser="rtn:clip=True")
    assert len(calls) == TENSORS
    out.unlink()
    subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], check=False, env=env())
    tiny_model("llama", folder, seed=1, **SHAPE)
    convert(folder, out, quant="q4_0")
    assert len(calls) == 2 * TENSORS


def test_an_interruption_keeps_parts_and_a_refusal_does_not(tmp_path, monkeypatch):
    folder, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "q.gguf"
    for error, kept in ((KeyboardInterrupt(), True), (BadInput("no"), False)):
        plain, names = RtnQuantiser.quantise, []

        def quantise(self, name, *given, plain=plain, names=names, error=error):
            names.append(name)
            if len(names) == 4:
                raise error
            return plain(self, name, *given)

        with monkeypatch.context() as patch:
            patch.setattr(RtnQuantiser, "quantise", quantise)
            with pytest.raises(type(error)):
                convert(folder, out, quant="q8_0")
        assert (tmp_path / ".q.gguf.parts").exists() is kept
        assert not out.exists()


def test_half_a_part_is_no_part(tmp_path):
    parts = Parts(tmp_path / "out", "stamp")

    def pieces():
        yield np.arange(5, dtype=np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.keep("a", pieces())
    assert not parts.has("a", 5)
    parts.keep("a", [np.arange(5, dtype=np.uint8), np.arange(2, dtype=np.uint8)])
    assert parts.has("a", 7)
    assert not parts.has("a", 8)
    assert not Parts(tmp_path / "out", "other stamp").has("a", 7)
    assert np.concatenate(list(parts.read("a"))).tolist() == [0, 1, 2, 3, 4, 0, 1]


def env():
    return {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
