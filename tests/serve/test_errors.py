"""What users get wrong with models: one sentence each, exit code 2, no traceback."""

import json
import shutil

import pytest

from edgewise.testing.tiny import tiny_model


def refused(ran, *words):
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err
    assert ran.err.startswith("edgewise: ")
    for word in words:
        assert word in ran.err, ran.err


@pytest.fixture
def broken(plain, tmp_path):
    """A copy of a good model, to be spoiled."""
    return shutil.copytree(plain, tmp_path / "model")


@pytest.mark.parametrize("verb", [["run"], ["show"], ["bench"], ["score", "--text", __file__]])
def test_no_such_model(cli, verb):
    refused(cli(*verb, "nosuch"), "nosuch")


def test_a_truncated_file(cli, broken):
    file = broken / "model.safetensors"
    blob = file.read_bytes()
    for keep in (0, 5, 100, len(blob) // 2, len(blob) - 1):
        file.write_bytes(blob[:keep])
        refused(cli("run", broken, "Hello"), "model.safetensors")


def test_a_truncated_gguf(cli, tmp_path):
    file = tmp_path / "short.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00" + (7).to_bytes(8, "little"))
    refused(cli("run", file, "Hello"), "short.gguf")


def test_a_directory_without_config(cli, broken):
    (broken / "config.json").unlink()
    refused(cli("run", broken, "Hello"), "config.json")


def test_a_config_that_disagrees_with_its_tensors(cli, broken):
    file = broken / "config.json"
    config = json.loads(file.read_text())
    for key, value in (("num_hidden_layers", 3), ("intermediate_size", 96), ("num_attention_heads", 2)):
        file.write_text(json.dumps(config | {key: value}))
        refused(cli("run", broken, "Hello"))


def test_a_prompt_longer_than_the_context(cli, plain):
    refused(cli("run", plain, "a" * 600), "601", "512")
    refused(cli("run", plain, "a" * 40, "-c", 32), "41", "32")


def test_a_vocabulary_larger_than_the_embedding(cli, tmp_path):
    folder = tiny_model("llama", tmp_path / "small", vocab_size=200)
    refused(cli("run", folder, "Hello"), "200")


def test_an_architecture_nobody_wrote(cli, broken):
    file = broken / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "lama"}))
    refused(cli("run", broken, "Hello"), "lama", "llama")
