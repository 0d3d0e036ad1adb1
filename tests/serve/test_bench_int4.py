"""`edgewise bench int4`: the rows it promises, sizes that are the files' own, and a picture of every row."""

import json

import pytest

from edgewise.serve.benches import int4
from edgewise.serve.cli import main
from edgewise.serve.scatter import scatter
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}


def test_it_measures_formats_methods_and_auto(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(int4, "DECODED", 4)
    monkeypatch.setattr(int4, "ROUNDS", 1)
    model = tiny_model("llama", tmp_path / "m", **SHAPE)
    (tmp_path / "learn").write_text("words to learn from. " * 40)
    (tmp_path / "text").write_text("other words to be scored, " * 8)
    more = ["--calibrate", str(tmp_path / "learn"), "--text", str(tmp_path / "text"), "--max-loss", "9"]
    bits = ["--bits", "q4_0,int2:group=32", "--methods", "rtn,hqq", "--picture", str(tmp_path / "p.svg")]
    assert main(["bench", "int4", str(model), *bits, *more, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [(row["format"], row["method"]) for row in rows]
    assert names[0] == ("f32", "-")
    assert names[1:5] == [(f, m) for f in ("q4_0", "int2:group=32") for m in ("rtn", "hqq")]
    assert names[5][0] == "auto"
    assert rows[0]["of_fp32"] == 1
    assert rows[0]["of_fp16"] == 2
    weights = rows[0]["bytes"] / 4
    for row in rows:
        assert row["bits"] == pytest.approx(8 * row["bytes"] / weights)
        assert row["tok_s"] > 0
    assert 4.5 < rows[1]["bits"] < 5
    assert 3 < rows[3]["bits"] < 3.7
    picture = (tmp_path / "p.svg").read_text()
    assert picture.count("<circle") == 5 + len({m for _, m in names[1:5]}) + 1  # a marker a row, one a name
    assert "of FP16" in int4.show(rows, 10)
    assert main(["bench", "int4", str(model), "--picture", str(tmp_path / "p.png")]) == 2
    assert "SVG" in capsys.readouterr().err


def test_it_goes_on_where_it_was_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(int4, "DECODED", 4)
    monkeypatch.setattr(int4, "ROUNDS", 1)
    model = tiny_model("llama", tmp_path / "m", **SHAPE)
    (tmp_path / "text").write_text("words to be scored, " * 8)
    command = ["bench", "int4", str(model), "--bits", "q4_0", "--methods", "rtn,hqq", "--max-loss", "-1",
               "--text", str(tmp_path / "text"), "--json"]  # fmt: skip
    state = ["--state", str(tmp_path / "state")]
    clock = iter(range(100))
    with monkeypatch.context() as slow:
        slow.setattr(int4.time, "perf_counter", lambda: float(next(clock)))
        assert main([*command, *state, "--stop-after", "1.5"]) == 0
    assert "2 rows are left" in capsys.readouterr().out
    assert main([*command, *state]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    for row in (*rows, *whole):
        row.pop("tok_s")
    assert rows == whole
    assert main([*command, *state, "--limit", "20"]) == 2
    assert "another run" in capsys.readouterr().err
    assert main([*command, "--stop-after", "3"]) == 2
    assert "--state" in capsys.readouterr().err


def test_markers_lie_where_the_numbers_say():
    drawn = scatter({"a": [(2.0, 1.0, "low"), (4.0, 100.0, "high")]}, "t", "x", "y & z", (10.0, "bar"))
    heights = [float(line.split('cy="')[1].split('"')[0]) for line in drawn.splitlines() if line.startswith("<circle")]
    bar = next(float(line.split('y1="')[1].split('"')[0]) for line in drawn.splitlines() if "#20262b\"/>" in line)
    assert heights[0] > bar > heights[1]
    assert bar == pytest.approx(sum(heights[:2]) / 2, abs=0.1)
    assert "y &amp; z" in drawn
