"""`edgewise check`: passes on a sound device, fails with exit code 1 on one that is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.kernels.devices import cpu
from edgewise.kernels.devices.reference import ReferenceDevice, ReferenceWeight
from edgewise.serve.cli import main
from edgewise.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("qwen2", tmp_path_factory.mktemp("models") / "tiny")


def test_sound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "invariance", str(folder), "--device", "reference", "--tokens", "34", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] is True
    assert report["difference"] is None
    assert report["cases"] == 2 * (16 + 8 + 2)
    assert report["price"].startswith("none: one kernel table")


def test_unsound_is_found_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a matrix product whose last bit depends on the number of rows, as most libraries' does."""

    def sloppy(self: ReferenceDevice, x: Any, w: ReferenceWeight, bias: Any = None, add: Any = None) -> Any:
        y = np.matmul(w.values, x[:, :, None])[:, :, 0] * np.float32(1 + 1e-7 * (len(x) == 7))
        y = y if bias is None else y + bias
        return y if add is None else y + add

    monkeypatch.setattr(ReferenceDevice, "linear", sloppy)
    assert main(["check", "invariance", str(folder), "--device", "reference", "--tokens", "20"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS  first at threads 1, page_tokens 16, chunk" in out


def test_no_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "invariance", "/nosuch/model"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("edgewise: ")
    assert "Traceback" not in err


def test_tables_are_equal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tables", str(folder), "--tokens", "24", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"]
    assert [row["isa"] for row in rows] == cpu.tables()[::-1]
    assert all(row["equal"] and row["largest_difference"] == 0 for row in rows)
    assert len({row["logits_hash"] for row in rows}) == 1


def test_a_table_that_differs_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: one table adds a little."""
    sound = cpu.CpuDevice.rms_norm

    def sloppy(self: cpu.CpuDevice, x: Any, w: Any, eps: float) -> Any:
        if self.isa == cpu.tables()[0]:
            eps *= 1.5
        return sound(self, x, w, eps)

    if len(cpu.tables()) < 2:
        pytest.skip("this CPU can run one kernel table only")
    monkeypatch.setattr(cpu.CpuDevice, "rms_norm", sloppy)
    assert main(["check", "tables", str(folder), "--tokens", "24"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(cpu.tables()[0])
    assert lines[-1].endswith("differ")
    assert all(line.endswith("equal") for line in lines[2:-1])
