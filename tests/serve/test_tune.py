"""`tune kernels`, `bench tuner` and what `doctor` says of them. Times are not looked at, only what is kept."""

import json

import pytest

from edgewise import LLM
from edgewise.serve.benches import tuner
from edgewise.serve.commands import tune

pytestmark = pytest.mark.native


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "BATCHES", (1, 2))
    monkeypatch.setattr(tune, "REST_S", 0.0)
    monkeypatch.setattr(tune, "BURST_S", 0.0)
    monkeypatch.setattr(tune, "PROMPTS", (16,))
    monkeypatch.setattr(tune.lookup, "FORMATS", ("int1:group=128",))
    monkeypatch.setattr(tune.lookup, "ROWS", (32, 64))
    monkeypatch.setattr(tune.lookup, "COLS", 128)
    return tmp_path / "cache"


def as_json(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_tuning_is_stored_and_a_second_run_has_nothing_to_do(cli, plain, cache):
    first = as_json(cli("tune", "kernels", plain, "--seconds", 20, "-t", 2, "--json"))
    assert first["tuned_now"] > 0
    assert first["unfinished"] == 0
    assert first["refused"] == 0
    assert [row["columns"] for row in first["steps"]] == ["1", "2", "9-64"]
    assert len(list((cache / "tuning").iterdir())) == 1
    assert list(first["lookup"]) == ["int1:group=128"]
    kept = json.loads(next((cache / "tuning").iterdir()).read_text())["choices"]
    assert len(kept) >= len(tune.lookup.COLUMNS)  # where lookup pays, for every later load
    second = as_json(cli("tune", "kernels", plain, "-t", 2, "--json"))
    assert second["lookup"] == first["lookup"]
    assert second["tuned_now"] == 0
    assert second["pairs"] == 0
    assert second["tuned_before"] == first["tuned_now"]
    assert second["steps"] == []
    said = cli("tune", "kernels", plain, "-t", 2)
    assert f"nothing to tune: all {first['tuned_now']} matmuls were measured before" in said.out
    facts = as_json(cli("doctor", "-t", 2, "--json"))
    assert facts["tuning"]["matmuls_measured"] == first["tuned_now"]
    assert as_json(cli("doctor", "-t", 1, "--json"))["tuning"]["matmuls_measured"] == 0


def test_what_is_not_finished_is_tuned_another_time(cli, plain, cache):
    short = cli("tune", "kernels", plain, "--seconds", 1e-3, "-t", 1, "--exhaustive", "--json")
    assert as_json(short)["unfinished"] > 0
    assert as_json(cli("tune", "kernels", plain, "--seconds", 20, "-t", 1, "--json"))["tuned_now"] > 0
    again = as_json(cli("tune", "kernels", plain, "--seconds", 0.1, "-t", 1, "--again", "--json"))
    assert again["tuned_before"] == 0


def test_a_range_whose_steps_do_not_gain_is_given_back(cli, plain, cache, monkeypatch):
    monkeypatch.setattr(tune, "race", lambda *_: [[1.2], [1.1], [0.9]])  # one bad burst is enough
    monkeypatch.setattr("edgewise.plan.duel.GAIN", 0.0)
    monkeypatch.setattr("edgewise.plan.duel.SURE", 0.0)
    report = as_json(cli("tune", "kernels", plain, "--seconds", 20, "-t", 2, "--json"))
    for row in report["steps"]:
        assert row["kept"] is (row["changed"] == 0)
    stored = json.loads(next((cache / "tuning").iterdir()).read_text())
    assert all(entry["knobs"] == {} for entry in stored["kernels"].values())


def test_a_damaged_store_is_mentioned_and_replaced(cli, plain, cache):
    cli("tune", "kernels", plain, "--seconds", 0.1, "-t", 1)
    report = as_json(cli("tune", "kernels", plain, "--seconds", 20, "-t", 1, "--json"))
    path = next((cache / "tuning").iterdir())
    assert str(path) == report["store"]
    path.write_text("{")
    assert "is damaged" in cli("doctor", "-t", 1).out
    with pytest.warns(UserWarning, match="is damaged"):
        LLM(plain, threads=1)
    assert "is damaged" in as_json(cli("tune", "kernels", plain, "--seconds", 20, "-t", 1, "--json"))["note"]
    assert not as_json(cli("tune", "kernels", plain, "-t", 1, "--json"))["note"]


def test_bench_tuner(cli, plain, cache, monkeypatch):
    monkeypatch.setattr(tuner, "everything", tuner.candidates)  # few enough for seconds
    report = as_json(cli("bench", "tuner", plain, "--seconds", 3, "--exhaustive", 3, "--rounds", 3, "-t", 1, "--json"))
    assert report["matmuls"]
    for row in report["matmuls"]:
        same = row["tuned"] == row["best"]
        assert (row["of_best"] == 1.0) or not same
        assert row["gain"] > 0
    assert report["least_of_best"] <= report["of_best"]
    assert not cache.exists()  # a bench stores nothing
    short = cli("bench", "tuner", plain, "--seconds", 0.1, "--exhaustive", 0.1, "--rounds", 3, "-t", 1).out
    assert "not searched to the end" in short


def test_bench_tuner_goes_on_where_it_was_stopped(cli, plain, cache, tmp_path):
    command = ("bench", "tuner", plain, "--seconds", 0.5, "--exhaustive", 1, "--rounds", 3, "-t", 1, "--json")
    kept = ("--state", tmp_path / "state")
    first = as_json(cli(*command, *kept, "--stop-after", 0.2))
    assert first["left"] > 0
    last = as_json(cli(*command, *kept))
    assert last["left"] == 0
    assert last["exhaustive_s"] >= first["exhaustive_s"]
    again = as_json(cli(*command, *kept))
    assert again == last  # nothing is measured twice
    assert "another run" in cli("bench", "tuner", plain, "--exhaustive", 3, "-t", 1, *kept).err
    assert "--state" in cli("bench", "tuner", plain, "--stop-after", 3).err
