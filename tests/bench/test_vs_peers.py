"""The whole comparison with engines that make up their speed: it goes on when a peer fails, and tells everything."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from small import tiny

import vs_peers
from race import environments, peers
from race.children import Child, Failed
from race.peers import Model, Peer
from race.roofs import Probe

pytestmark = pytest.mark.native


class Prober:
    def __init__(self, threads, build):
        pass

    def __call__(self):
        return Probe(40.0, 40.0, 900.0, 450.0, 60.0)


@pytest.fixture
def race(engine, tmp_path, monkeypatch, capsys):
    """Runs vs_peers on fake peers, name → model (see conftest): standard output, standard error and the kept run."""
    gguf = tiny("stories-15m", tmp_path)

    def run(models, *arguments, own="300"):
        def ready(speed):
            if speed is None:
                raise Failed("it cannot be built")
            return lambda python, subject: Model(Path(speed), "int8", lambda test: 10**6)

        def program(python):
            return engine

        known = {
            name: Peer(
                name, "bench-fake", [], ready(speed or "1"), program, lacks={} if speed else {"llama": "too small"}
            )
            for name, speed in models.items()
        }
        monkeypatch.setattr(vs_peers, "PEERS", known)
        monkeypatch.setattr(vs_peers, "Prober", Prober)
        monkeypatch.setattr(Peer, "install", lambda self: Path(sys.executable))
        monkeypatch.setattr(vs_peers, "own", lambda subject, words, wait: Child("edgewise", [*engine, own, *words]))
        kept = tmp_path / "run.json"
        words = ["vs_peers.py", "--gguf", str(gguf), "--pairs", "2", "--save", str(kept), *arguments]
        monkeypatch.setattr(sys, "argv", words)
        vs_peers.main()
        captured = capsys.readouterr()
        return captured.out, captured.err, json.loads(kept.read_text())

    return run


def test_every_test_of_every_peer_is_told(race, tmp_path):
    picture = tmp_path / "run.svg"
    out, err, run = race({"llama.cpp": "100", "other": "150"}, "--markdown", "--picture", str(picture))
    results = run["races"][0]["results"]
    assert [(row["peer"], row["test"]) for row in results] == [
        (peer, test) for peer in ("llama.cpp", "other") for test in ("pp512", "tg128", "tg128x8", "first16")
    ]
    ratios = {(row["peer"], row["test"]): row["ratio"]["median"] for row in results if row["kind"] == "speed"}
    assert ratios == pytest.approx({key: 3.0 if key[0] == "llama.cpp" else 2.0 for key in ratios})
    assert list(run["races"][0]["verify"]["engines"]) == ["edgewise", "llama.cpp"]
    assert "| pp512 | llama.cpp int8 | 300.0 (300.0–300.0) | 100.0 (100.0–100.0) | 3.00 (3.00–3.00) |" in out
    assert "| T(N)/T(1) |" in out
    assert "pair 2/2" in err
    texts = [node.text for node in ElementTree.parse(picture).iter() if node.tag.endswith("text")]
    assert {"edgewise Q8_0", "llama.cpp int8", "other int8", "pp512", "tg128x8"} <= set(texts)


def test_what_fails_is_told_and_the_rest_goes_on(race):
    models = {"absent": None, "unlucky": "100-load", "half": "100-decode", "dying": "100-die", "fine": "150"}
    out, _, run = race(models, "--tests", "pp,tg,verify")
    told = {each["what"]: each["why"] for each in run["races"][0]["failed"]}
    assert told["absent"] == "too small"
    assert "out of luck" in told["unlucky"]
    assert "no decode today" in told["half tg128"]
    assert "died in decode" in told["dying tg128"]
    measured = {(row["peer"], row["test"]) for row in run["races"][0]["results"]}
    assert measured == {("half", "pp512"), ("dying", "pp512"), ("fine", "pp512"), ("fine", "tg128")}
    assert list(run["races"][0]["verify"]["engines"]) == ["edgewise"]  # without llama.cpp, by itself
    assert "absent: too small" in out


def test_edgewise_failing_ends_the_race_with_its_reason(race):
    out, _, run = race({"other": "150"}, own="300-load")
    assert run["races"][0]["results"] == []
    assert "edgewise: edgewise ended with exit code 1: out of luck" in out
    _, _, run = race({"other": "150", "never": "150"}, "--tests", "tg", own="300-die")
    assert [each["what"] for each in run["races"][0]["failed"]] == ["other tg128"]


def test_a_kept_run_is_shown_again_without_measuring(race, tmp_path, monkeypatch, capsys):
    out, _, _ = race({"other": "150"}, "--tests", "pp")
    monkeypatch.setattr(vs_peers, "own", None)
    monkeypatch.setattr(sys, "argv", ["vs_peers.py", "--render", str(tmp_path / "run.json")])
    vs_peers.main()
    assert capsys.readouterr().out == out


def test_a_picture_that_needs_matplotlib_says_so(race, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _, err, _ = race({"other": "150"}, "--tests", "pp", "--picture", str(tmp_path / "run.png"))
    assert "need matplotlib" in err


@pytest.mark.parametrize("words", [["--peers", "llama-cpp"], ["--tests", "decode"], []])
def test_wrong_options_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vs_peers.py", *words])
    with pytest.raises(SystemExit) as stop:
        vs_peers.main()
    assert stop.value.code == 2
    assert {"--peers": "Did you mean 'llama.cpp'?", "--tests": "there is no 'decode'"}.get(
        words[0] if words else "", "name a SHAPE"
    ) in capsys.readouterr().err


def test_peers_need_no_room_of_ours_and_name_every_version():
    for peer in peers.PEERS.values():
        assert peer.folder.startswith("bench-")
        assert all("==" in package for step in peer.steps for package in step if not package.startswith("onnx")), (
            peer.name
        )


def test_an_environment_that_has_its_packages_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    made = []
    monkeypatch.setattr(environments.venv, "create", lambda *_, **__: made.append("venv"))
    monkeypatch.setattr(environments, "run", lambda *_: made.append("pip"))
    environments.environment(tmp_path, [["numpy"]])
    assert made == []
    environments.environment(tmp_path, [["numpy==0.0.1"], ["jinja2"]])
    assert made == ["venv", "pip", "pip"]
