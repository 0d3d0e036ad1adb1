"""`edgewise convert` and `edgewise fabricate`: what they print, and one sentence with exit code 2 for what is wrong."""

import json

import pytest

from edgewise.serve.cli import main
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native


def test_convert_and_fabricate_report_what_they_wrote(tmp_path, capsys):
    folder = tiny_model("llama", tmp_path / "hf", hidden_size=64, num_attention_heads=4, intermediate_size=96)
    assert main(["convert", str(folder), "-o", str(tmp_path / "m.gguf"), "--quant", "q8_0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == (tmp_path / "m.gguf").stat().st_size
    assert set(facts["weights"]) == {"Q8_0", "F32"}
    arguments = ["--config", str(folder / "config.json"), "-o", str(tmp_path / "f.gguf"), "--quant", "q4_0", "--pure"]
    assert main(["fabricate", *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'f.gguf'}: ")
    assert "Q4_0" in printed.out
    assert main(["fabricate", *arguments]) == 2
    assert main(["fabricate", *arguments, "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "nosuch", "-o", "x.gguf"], "no model 'nosuch'"),
        (["convert", "{hf}", "-o", "taken.gguf"], "--force"),
        (["convert", "{hf}", "-o", "x.gguf", "--quant", "q4"], "no quantisation 'q4'"),
        (["convert", "{hf}", "-o", "x.gguf", "--quantiser", "gptx"], "no quantiser 'gptx'"),
        (["convert", "{hf}", "-o", "no/where/x.gguf"], "does not exist"),
        (["convert", "{hf}/config.json", "-o", "x.gguf"], "config.json"),
        (["fabricate", "stories-15", "-o", "x.gguf"], "Did you mean 'stories-15m'"),
        (["fabricate", "-o", "x.gguf"], "Name a shape"),
        (["fabricate", "--config", "nosuch.json", "-o", "x.gguf"], "nosuch.json"),
    ],
)
def test_refusals_are_one_sentence(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tiny_model("llama", tmp_path / "hf")
    (tmp_path / "taken.gguf").write_text("mine")
    assert main([argument.replace("{hf}", str(folder)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "taken.gguf"]
    assert (tmp_path / "taken.gguf").read_text() == "mine"
