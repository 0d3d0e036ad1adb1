"""The streamed layout: the same text with and without a budget; a wrong bit is noticed at its first reading."""

import re

import pytest

from edgewise.base import BadInput, SamplingParams
from edgewise.convert.converting import convert
from edgewise.convert.streaming import convert_streamed
from edgewise.models import streaming
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint

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
