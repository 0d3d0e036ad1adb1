"""open_checkpoint: each dialect opens, and what cannot be opened says so in one sentence."""

import os
from pathlib import Path

import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.testing.mutate import gguf
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

from .conftest import write_hf


def test_each_dialect_of_one_model_holds_the_same_tensors(stories: Path) -> None:
    hf, gguf = open_checkpoint(stories), open_checkpoint(stories / "stories260K-F32.gguf")
    assert (hf.header().dialect, gguf.header().dialect) == ("hf", "gguf")
    assert hf.header().architecture == gguf.header().architecture == "llama"
    one, two = hf.info("model.embed_tokens.weight"), gguf.info("token_embd.weight")
    assert one.shape == two.shape
    read = [SOURCES.build("file", files=c.header().files).read(i.extent, 0, i.extent.nbytes)
            for c, i in ((hf, one), (gguf, two))]  # fmt: skip
    assert bytes(read[0]) == bytes(read[1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nosuch", "no such file"),
        ("mode", r"Did you mean .*model"),
        ("nosuch/repo", "no such repository in the Hugging Face cache"),
        ("", "No model is named"),
        ("a\0b", "No model is named"),
        ("empty", "no config.json"),
        ("pickled", "pickle files are never opened"),
        ("pickled/pytorch_model.bin", "pickle files are never opened"),
        ("text.txt", "not a model file"),
        ("model/model.safetensors", "give its folder"),
        ("fifo", "not a regular file"),
        ("~nobody-here/model", "home folder"),
        ("x" * 5000, "no such file"),
        ("\udcff\n", "no such file"),
        ("org/name:../../x.gguf", "no such"),
        ("/dev/null", "not a regular file"),
    ],
)
def test_what_is_no_model_is_refused_by_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    write_hf(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"PK")
    (tmp_path / "text.txt").write_text("hello")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInput, match=sentence):
        open_checkpoint(text)


def test_a_repository_in_the_cache_opens_through_its_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--name"
    write_hf(repo / "made")
    snapshot = repo / "snapshots" / ("0" * 40)
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted((repo / "made").iterdir())):
        file.rename(repo / "blobs" / f"{i:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:040x}")
    checkpoint = open_checkpoint("org/name")
    assert checkpoint.header().name == "org/name"
    info = checkpoint.info("w")
    assert len(SOURCES.build("file", files=checkpoint.header().files).read(info.extent, 0, info.extent.nbytes)) == 24
    with pytest.raises(BadInput, match="no GGUF file"):
        open_checkpoint("org/name:x.gguf")


def test_a_folder_with_only_a_tokenizer_opens_when_tensors_are_not_needed(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, need_tensors=False).names() == []


def test_a_gguf_file_beside_the_originals_config_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "m.gguf").write_bytes(gguf.tiny().encode())
    assert open_checkpoint(tmp_path).header().dialect == "gguf"
    (tmp_path / "n.gguf").write_bytes(gguf.tiny().encode())
    with pytest.raises(BadInput, match=r"2 GGUF models.*m\.gguf"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["m.gguf", "model.safetensors"])
def test_a_git_lfs_pointer_says_so(tmp_path: Path, name: str) -> None:
    write_hf(tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadInput, match="Git LFS pointer"):
        open_checkpoint(tmp_path if name == "model.safetensors" else tmp_path / name)


def test_big_endian_gguf_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "big") + bytes(16))
    with pytest.raises(Unsupported, match="big-endian"):
        open_checkpoint(tmp_path / "m.gguf")
