"""--fp8 from the command line to the device, what auto means, and the bench beside a stored choice."""

import json
import warnings
from pathlib import Path

import pytest

from edgewise.base import BadInput
from edgewise.convert.converting import convert
from edgewise.embedded import embedded_model
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.plan.float8 import best_of, choose_float8, store_float8
from edgewise.serve.benches.fp8_int8 import SIGNS, measure_fp8_int8, samples, sign, signal_to_noise
from edgewise.serve.commands.show import describe
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama", tmp_path / "plain", hidden_size=96)
    convert(tmp_path / "plain", tmp_path / "fp8", quant="fp8_e4m3")
    return tmp_path / "fp8"


def test_auto_is_int8_until_this_machine_was_measured(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"become INT8 in groups of 32 \(the default"):
        llm = LLM(folder, threads=1)
    logits = {"auto": llm.logits([1, 5, 9])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fp8 in ("bf16", "int8"):
            logits[fp8] = LLM(folder, threads=1, fp8=fp8).logits([1, 5, 9])
        assert (logits["auto"] == logits["int8"]).all()
        assert (logits["auto"] != logits["bf16"]).any()
        assert describe(str(folder), None, "f16")["fp8"].startswith("computed as int8 (the default")
        device = CpuDevice(1)
        assert store_float8(device, "bf16", {1: 1.0}, {1: 1.1}) == ""
        assert choose_float8("auto", device) == ("bf16", "measured on this machine")
        assert (LLM(folder, threads=1).logits([1, 5, 9]) == logits["bf16"]).all()
    with pytest.raises(BadInput, match=r"computed as 'f16'\. Known: auto, bf16, int8"):
        LLM(folder, threads=1, fp8="f16")
    with pytest.raises(BadInput, match="has no FP8 weights"):
        LLM(threads=1, fp8="int8")


def test_the_best_is_exact_unless_that_costs_more_than_a_twentieth() -> None:
    assert best_of({1: 1.0, 8: 1.04}, {1: 1.0, 8: 1.0}) == "bf16"
    assert best_of({1: 1.0, 8: 2.0}, {1: 1.02, 8: 1.0}) == "int8"
    assert best_of({1: 1.0, 8: 1.1}, {1: 2.0, 8: 1.0}) == "bf16"


def test_signs() -> None:
    noise = [signal_to_noise(name, sample) for name, sample in samples(60_000)]
    signs = [sign(noise, *expected) for expected in SIGNS]
    assert [s["holds"] for s in signs] == [True] * len(SIGNS)
    normal = noise[0]
    assert abs(normal["int8"] - 40.5) < 1
    assert abs(normal["F8_E4M3"] - 31.6) < 1
    assert abs(normal["F8_E5M2"] - 25.6) < 1


def test_the_bench_prints_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    measure_fp8_int8(None, limit=150, rows=64, cols=128, seconds=0.001, threads=1, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert [r["columns"] for r in result["speed"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    losses = {r["weights"]: r["loss"] for r in result["perplexity"]}
    assert losses["F32"] == 0
    assert 0 < abs(losses["int8:group=32"]) < abs(losses["F8_E5M2"])
    assert embedded_model().exists()
