"""Tuning a device: on a clock of its own, then the real one while tokens are made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import LLM
from edgewise.base import BadInput, Incompatible, SamplingParams, Unsupported
from edgewise.kernels.api import DeviceInfo
from edgewise.kernels.tuning import Knobs, Matmul, Seen
from edgewise.plan.probe import Fingerprint, fingerprint
from edgewise.plan.store import Store
from edgewise.plan.tuners import TUNERS
from edgewise.plan.tuning import KernelTuning, apply_stored
from edgewise.testing.tiny import tiny_model

HERE = Fingerprint("a CPU", "x86_64", "f", "L3 32M", 2, "toy", "b")
ONE, TWO = Matmul("F32", 64, 32, 0), Matmul("F32", 512, 256, 4)
STANDARD = {"ahead": 0, "columns": 8, "blocks": 2, "chunk": 384 << 10, "share": 0, "cut": 2, "threads": 0,
            "wake": 1 << 16}  # fmt: skip


class ToyWeight:
    nbytes = 1000

    def __init__(self, matmul: Matmul) -> None:
        self.matmul = matmul


class ToyDevice:
    """Settings cost what they are told to; `wrong` ones change a bit."""

    def __init__(self, costs: dict[tuple[str, int], float], wrong: Knobs | None = None) -> None:
        self.info = DeviceInfo("toy", "toy", 2, 0)
        self.notes: list[str] = []
        self.now = 0.0
        self.costs = costs
        self.wrong = wrong
        self.knobs: dict[Matmul, dict[str, int]] = {}
        self.weights = {m: [ToyWeight(m) for _ in range(3)] for m in (ONE, TWO)}
        self.seen = [Seen(ONE, 1, 5), Seen(TWO, 20, 1)]
        self.ran: list[ToyWeight] = []

    def clock(self) -> float:
        return self.now

    def matmuls(self) -> Sequence[Seen]:
        return self.seen

    def weights_of(self, matmul: Matmul) -> list[ToyWeight]:
        return self.weights[matmul]

    def standard(self, matmul: Matmul) -> Knobs:
        return STANDARD

    def tune(self, matmul: Matmul, knobs: Knobs) -> None:
        if set(knobs) - set(STANDARD) or any(type(v) is not int for v in knobs.values()):
            raise BadInput("tune: no such setting.")
        self.knobs[matmul] = dict(knobs)

    def upload(self, values: Any) -> Any:
        return values

    def download(self, x: Any) -> Any:
        return x

    def linear(self, x: Any, w: ToyWeight) -> Any:
        knobs = self.knobs.get(w.matmul, {})
        self.ran.append(w)
        self.now += 1e-3 * float(np.prod([self.costs.get(item, 1.0) for item in knobs.items()]))
        result = np.ones(4, np.float32)
        if self.wrong is not None and self.wrong.items() <= knobs.items():
            result[2] = np.nextafter(np.float32(1), np.float32(2))
        return result


def tuning(device: ToyDevice, folder: Path, tuner: str = "halving") -> KernelTuning:
    return KernelTuning(
        device, lambda c: TUNERS.build(tuner, candidates=c), Store(HERE, folder), cache_bytes=10, clock=device.clock
    )  # fmt: skip


def test_the_faster_setting_is_found_stored_and_set(tmp_path: Path) -> None:
    device = ToyDevice({("cut", 1): 0.8, ("cut", 4): 1.5, ("columns", 2): 0.5})
    work = tuning(device, tmp_path)
    assert work.look() == 2
    assert work.left() > 0
    assert work.spend(1e9)
    assert device.knobs[ONE] == {"cut": 1}
    assert device.knobs[TWO]["columns"] == 2
    entry = Store(HERE, tmp_path).get("kernels", ONE.key)
    assert entry is not None
    assert entry["gain"] == pytest.approx(1.25)
    assert entry["default_us"] == pytest.approx(1000)
    again = ToyDevice({})
    assert tuning(again, tmp_path).spend(1e9)  # a second start tunes nothing
    assert not again.ran
    assert apply_stored(again, Store(HERE, tmp_path)) == 2
    assert again.knobs == device.knobs


def test_other_bits_are_never_admitted(tmp_path: Path) -> None:
    device = ToyDevice({("cut", 1): 0.5, ("cut", 4): 0.8}, wrong={"cut": 1})
    work = tuning(device, tmp_path)
    assert work.spend(1e9)
    assert device.knobs[ONE] == {"cut": 4}
    assert work.done[ONE].refused == 1
    assert not any("cut" in dict(key) and dict(key)["cut"] == 1 for key in work.done[ONE].gains)


def test_between_steps_the_device_holds_the_best_that_is_known(tmp_path: Path) -> None:
    device = ToyDevice({("cut", 1): 0.8})
    work = tuning(device, tmp_path)
    calls = 0
    while not work.spend(2e-3):
        calls += 1
        for matmul, knobs in device.knobs.items():
            assert knobs == (dict(work.done[matmul].tuner.best()) if matmul in work.done else {})
    assert calls > 20
    assert device.knobs[ONE] == {"cut": 1}


def test_it_keeps_to_its_time(tmp_path: Path) -> None:
    device = ToyDevice({})
    work = tuning(device, tmp_path)
    for _ in range(50):
        work.spend(1e-3)
    assert device.now <= 0.05 + 5e-3  # what was lent, and the last pair


def test_what_is_not_finished_keeps_its_standard(tmp_path: Path) -> None:
    device = ToyDevice({("cut", 1): 0.5})
    work = tuning(device, tmp_path)
    assert not work.spend(0.02)
    work.stop()
    assert all(knobs == {} for knobs in device.knobs.values())
    assert Store(HERE, tmp_path).entries("kernels") == {}


def test_weights_take_turns_and_others_are_read_between(tmp_path: Path) -> None:
    device = ToyDevice({})
    work = KernelTuning(
        device, lambda c: TUNERS.build("halving", candidates=c), Store(HERE, tmp_path), cache_bytes=1500,
        clock=device.clock,
    )  # fmt: skip
    device.seen = [Seen(ONE, 1, 5), Seen(TWO._replace(range=0), 1, 1)]
    device.weights[TWO._replace(range=0)] = device.weights[TWO]
    work.compare(ONE, 1, [{}], 4)
    mine = device.weights[ONE]
    timed = [w for w in device.ran[2:] if w in mine]
    assert timed == [mine[0], mine[1], mine[2], mine[0]]
    between = device.ran[device.ran.index(mine[0], 2) + 1 : device.ran.index(mine[1])]
    assert len(between) >= 2  # of other weights, at least 1.5 times the caches
    assert not set(between) & set(mine)


def test_the_null_tuner_stores_nothing(tmp_path: Path) -> None:
    device = ToyDevice({("cut", 1): 0.5})
    assert tuning(device, tmp_path, "none").spend(1.0)
    assert Store(HERE, tmp_path).entries("kernels") == {}


@pytest.mark.parametrize("entry", [
    {}, {"knobs": {"cut": 1}}, {"format": "F32", "rows": "x", "cols": 1, "range": 0, "knobs": {"cut": 1}},
    {"format": "F32", "rows": 64, "cols": 32, "range": 0, "knobs": {"speed": 1}},
    {"format": "F32", "rows": 64, "cols": 32, "range": 0, "knobs": {"cut": "1"}},
    {"format": "F32", "rows": 64, "cols": 32, "range": 0, "knobs": [1]},
])  # fmt: skip
def test_entries_that_make_no_sense_are_passed_over(tmp_path: Path, entry: dict[str, Any]) -> None:
    store = Store(HERE, tmp_path)
    good = {**ONE._asdict(), "knobs": {"cut": 4}}
    store.put("kernels", {"bad": entry, "good": good})
    device = ToyDevice({})
    assert apply_stored(device, store) == 1
    assert device.knobs == {ONE: {"cut": 4}}


@pytest.mark.native
def test_tokens_are_the_same_while_it_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    model = tiny_model("llama", tmp_path / "model")
    prompts = [[5, 9, 40, 7], [3] * 20, [77]]
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    with LLM(model, threads=2) as plain:
        want = [result.outputs[0].token_ids for result in plain.generate(prompts, params)]
    with LLM(model, threads=2, tuner="halving:duel=3") as llm:
        work: Any = llm.parts.tuning
        assert work is not None
        work.spend(1e9)  # nothing has been multiplied yet
        assert not work.done
        for _ in range(3):
            assert [result.outputs[0].token_ids for result in llm.generate(prompts, params)] == want
        assert work.tasks or work.done  # it was tuning
        assert sum(task.pairs for task in (*work.tasks.values(), *work.done.values())) > 3
        assert work.spend(1e9)
        assert [result.outputs[0].token_ids for result in llm.generate(prompts, params)] == want
        assert not any(task.refused for task in work.done.values())
        tuned = set(work.done)
    with LLM(model, threads=2, tuner="halving") as again:
        assert [result.outputs[0].token_ids for result in again.generate(prompts, params)] == want
        work = again.parts.tuning
        assert not tuned & set(work.tasks)  # a second start tunes nothing


@pytest.mark.native
def test_a_loaded_model_takes_the_stored_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    model = tiny_model("llama", tmp_path / "model")
    with LLM(model, threads=1) as plain:
        plain.generate([[5]], SamplingParams(max_tokens=2, temperature=0.0))
        device: Any = plain.parts.device
        matmul = device.matmuls()[0].matmul
        store = Store(fingerprint(1, device.isa))
    store.put("kernels", {matmul.key: {**matmul._asdict(), "knobs": {"cut": 9}}})
    with LLM(model, threads=1) as llm:
        from edgewise.kernels.devices import cpu

        assert cpu._native._tuning(llm.parts.device, *matmul)["cut"] == 9
        assert llm.parts.tuning is None


def test_a_tuner_needs_a_device_with_settings(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model")
    with pytest.raises(Incompatible, match="needs a device with settings"):
        LLM(model, device="reference", tuner="halving")
    with pytest.raises(Unsupported, match="Did you mean 'halving'"):
        LLM(model, device="reference", tuner="halvin")
