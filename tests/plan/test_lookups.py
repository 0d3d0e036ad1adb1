"""What is measured about table lookup: kept, used by the next device, never measured twice."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("edgewise._native")

from edgewise.kernels import lookup
from edgewise.kernels.choices import Question
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.plan import lookups
from edgewise.plan.choices import Choices
from edgewise.plan.probe import fingerprint
from edgewise.plan.store import Store

pytestmark = pytest.mark.native


def test_measured_once_and_told_to_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ROWS", (32, 64))
    monkeypatch.setattr(lookup, "COLS", 128)
    device = CpuDevice(1)
    store = Store(fingerprint(1, device.isa), tmp_path)
    wanted = ("int1:group=64", "int2:group=32")
    found = lookups.measure(Choices(store), device, wanted, seconds=1e-4)
    assert set(found) == set(wanted)
    assert all(len(least) == len(lookup.COLUMNS) and set(least) <= {32, 64, None} for least in found.values())

    def again(*_: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(lookups, "Duel", again)
    choices = Choices(Store(fingerprint(1, device.isa), tmp_path))
    assert lookups.measure(choices, CpuDevice(1), wanted) == found
    told: dict[str, lookup.Least] = {}
    other = CpuDevice(1)
    monkeypatch.setattr(other, "set_lookup", lambda fmt, least: told.update({fmt: least}))
    other.consult(choices.known)
    assert told == found  # formats that nobody measured keep their usual rule


def test_a_duel_has_one_result() -> None:
    duel = lookups.Duel(CpuDevice(1), "int3:group=32", 48, 64, 5)
    np.testing.assert_array_equal(duel.dot(), duel.lookup())
    assert lookup.least_rows(lambda question: None, "int3:group=32") is None
    assert Question("lookup", "int2:group=64", 64, lookup.COLS, 1).key.startswith("lookup int2:group=64 64x2048")
