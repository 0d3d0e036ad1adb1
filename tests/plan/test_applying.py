"""A model that is loaded knows what was measured; without measurements nothing happens."""

from pathlib import Path

import pytest

from edgewise.assemble import assemble
from edgewise.kernels.choices import Question
from edgewise.kernels.devices import DEVICES
from edgewise.plan.applying import apply_measured
from edgewise.plan.probe import fingerprint
from edgewise.plan.store import Store
from edgewise.testing.tiny import tiny_model

ASKED = Question("lookup", "int2", 64, 128, 1)


@pytest.mark.native
def test_a_loaded_model_knows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    machine = DEVICES.build("cpu", threads=1)
    Store(fingerprint(1, machine.isa)).put("choices", {ASKED.key: {"best": "lookup"}})
    parts = assemble(tiny_model("llama", tmp_path / "model"), device=machine)
    assert parts.device.known(ASKED) == "lookup"
    assert machine.notes == []


@pytest.mark.native
def test_a_damaged_store_is_said_once_and_used_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    machine = DEVICES.build("cpu", threads=1)
    store = Store(fingerprint(1, machine.isa))
    store.folder.mkdir()
    store.path.write_text("{")
    apply_measured(machine)
    assert len(machine.notes) == 1
    assert "is damaged" in machine.notes[0]
    assert machine.known(ASKED) is None


def test_devices_without_choices_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    (tmp_path / "tuning").mkdir()
    apply_measured(DEVICES.build("reference"))
    assert not list((tmp_path / "tuning").iterdir())
