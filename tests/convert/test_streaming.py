"""The streamed layout: the same text with and without a budget; a wrong bit is noticed at its first reading."""

import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from edgewise.base import BadInput, OutOfRoom, SamplingParams
from edgewise.convert import journal
from edgewise.convert.converting import convert
from edgewise.convert.streaming import convert_streamed
from edgewise.models import streaming
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

PROMPT = [[5, 6, 7, 8, 9, 10, 200, 31] * 3]
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


def text(llm: LLM):
    out = llm.generate(PROMPT, GREEDY)[0].outputs[0]
    return out.error or tuple(out.token_ids)


@pytest.mark.parametrize("kind", ["olmoe", "mixtral", "llama"])
@pytest.mark.parametrize("dialect", ["hf", "gguf"])
def test_the_text_stays(tmp_path, monkeypatch, kind, dialect) -> None:
    model = tiny_model(kind, tmp_path / "model")
    if dialect == "gguf":
        convert(model, tmp_path / "model.gguf")
        model = tmp_path / "model.gguf"
    wanted = text(LLM(model, threads=1, ctx_size=64))
    shares: list[tuple[int, int]] = []
    written = convert_streamed(model, tmp_path / "out", watch=lambda done, total: shares.append((done, total)))
    assert shares[-1][0] == shares[-1][1] == written.nbytes
    checkpoint = open_checkpoint(tmp_path / "out")
    assert {n: checkpoint.info(n).shape for n in open_checkpoint(model).names()} == {
        n: checkpoint.info(n).shape for n in checkpoint.names()
    }
    assert text(LLM(tmp_path / "out", threads=1, ctx_size=64)) == wanted  # all of them fit
    monkeypatch.setattr(streaming.Needs, "count", lambda self, budget: 2)
    assert text(LLM(tmp_path / "out", threads=1, ctx_size=64, ram_budget="8GiB")) == wanted


def test_a_wrong_bit_is_noticed_at_the_first_reading(tmp_path) -> None:
    convert_streamed(tiny_model("olmoe", tmp_path / "model"), tmp_path / "out")
    path = tmp_path / "out" / "streamed.safetensors"
    data = bytearray(path.read_bytes())
    for at in range(5000, len(data), 4096):  # whichever experts are chosen
        data[at] ^= 4
    path.write_bytes(data)
    said = text(LLM(tmp_path / "out", threads=1, ctx_size=64))
    assert "do not have their checksum" in str(said)


def test_what_is_not_as_listed_is_refused(tmp_path) -> None:
    convert_streamed(tiny_model("olmoe", tmp_path / "model"), tmp_path / "out")
    with pytest.raises(BadInput, match="laid out for streaming already"):
        convert_streamed(tmp_path / "out", tmp_path / "again")
    with pytest.raises(BadInput, match="exists"):
        convert_streamed(tmp_path / "model", tmp_path / "out")
    where = tmp_path / "out" / "streamed.json"
    good = where.read_text()
    for broken, words in (
        (good.replace('"version": 1', '"version": 9'), "version 9"),
        (good.replace('"expert": 0', '"expert": 77', 1), "is broken"),
        (good.replace('"piece_bytes": 2097152', '"piece_bytes": 0'), "is broken"),
        ("[]", "expected a JSON object"),
    ):
        where.write_text(broken)
        with pytest.raises(BadInput, match=words):
            open_checkpoint(tmp_path / "out")
    where.write_text(re.sub(r"\"parts\": \[\[\d+", "\"parts\": [[16", good, count=1))
    with pytest.raises(BadInput, match="is not laid out as this model needs it"):
        LLM(tmp_path / "out", ctx_size=64)


KILLED = """
import os, signal, sys
from pathlib import Path
from edgewise.convert import journal
from edgewise.convert.streaming import convert_streamed
plain, calls = journal._write, []
def write(file, data):
    calls.append(len(data))
    if len(calls) == 6:
        plain(file, data[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    plain(file, data)
journal._write, journal.SYNC_BYTES = write, 1
convert_streamed(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written_from_now_on(monkeypatch) -> list[int]:
    plain, sizes = journal._write, []
    monkeypatch.setattr(journal, "_write", lambda file, data: (sizes.append(len(data)), plain(file, data))[1])
    return sizes


def test_a_killed_conversion_goes_on(tmp_path, monkeypatch) -> None:
    model, out = tiny_model("olmoe", tmp_path / "model"), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(model), str(out)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    sizes, shares = written_from_now_on(monkeypatch), []
    written = convert_streamed(model, out, watch=lambda done, total: shares.append((done, total)))
    assert len(sizes) == 10 - 4  # the table and four bundles were there
    assert shares[-1] == (written.nbytes, written.nbytes)
    convert_streamed(model, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "whole"]


def test_what_was_written_of_another_model_is_not_taken(tmp_path, monkeypatch) -> None:
    model, out = tiny_model("olmoe", tmp_path / "model"), tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, str(model), str(out)], check=False, env=os.environ)
    os.utime(next(model.glob("*.safetensors")), (1, 1))
    sizes = written_from_now_on(monkeypatch)
    convert_streamed(model, out)
    assert len(sizes) == 11


@pytest.mark.parametrize("at", [0, 1, 5, 10])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(tmp_path, monkeypatch, at) -> None:
    model, out = tiny_model("olmoe", tmp_path / "model"), tmp_path / "out"
    plain, calls = journal._write, []

    def full(file, data):
        calls.append(1)
        if len(calls) > at:
            plain(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(file, data)

    monkeypatch.setattr(journal, "_write", full)
    with pytest.raises(OutOfRoom, match=r"is full\. Free some space; the same command goes on"):
        convert_streamed(model, out)
    assert not out.exists()
    monkeypatch.setattr(journal, "_write", plain)
    convert_streamed(model, out)
    wanted = text(LLM(model, threads=1, ctx_size=64))
    assert text(LLM(out, threads=1, ctx_size=64)) == wanted


@pytest.mark.parametrize("kind", ["eio", "flip", "end"])
def test_no_reading_of_a_laid_out_model_gives_a_wrong_token(tmp_path, monkeypatch, kind) -> None:
    """Each k-th read of a short run, first readings as well: the file brings its checksums."""
    convert_streamed(tiny_model("olmoe", tmp_path / "model"), tmp_path / "out")
    monkeypatch.setattr(streaming.Needs, "count", lambda self, budget: 3)
    llm = LLM(tmp_path / "out", threads=1, ctx_size=64)
    wanted, store = text(llm), llm.parts.stream.running
    at = calls = 0
    while at <= calls:
        store.drop_all()
        store.source = SOURCES.build(f"faulty:kind={kind},at={at}", files=llm.parts.stream.files, direct=True)
        said = text(llm)
        calls = store.source.calls
        if at < calls:
            assert isinstance(said, str), (at, calls)
            assert {"eio": "Input/output error", "flip": "checksum", "end": "cut short"}[kind] in said
        else:
            assert said == wanted
        at += 1
    assert at > 8
    llm.close()
