"""Speculation through the front door: the embedded model's answers are the same bits, and bad choices are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Incompatible, OutOfRoom, SamplingParams, StructuredOutputsParams, Unsupported
from edgewise.embedded import embedded_model
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model

CODE = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n\n\ndef mul("
PROSE = "The module provides a simple way to read the file. The file is read line by line, and"


def answers(texts: list[Any], tokens: int, **options: Any) -> tuple[list[list[int]], int, int]:
    """Token ids of each prompt's greedy and seeded completions, then how many were drafted and accepted."""
    with LLM(max_num_seqs=8, ctx_size=512, threads=1, **options) as llm:
        greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        seeded = SamplingParams(temperature=0.7, seed=5, max_tokens=tokens // 4, ignore_eos=True)
        results = llm.generate(texts * 2, [greedy] * len(texts) + [seeded] * len(texts))
        return (
            [result.outputs[0].token_ids for result in results],
            sum(result.metrics.drafted for result in results),
            sum(result.metrics.accepted for result in results),
        )


@pytest.mark.native
def test_code_prose_and_noise_are_the_same_bits() -> None:
    pytest.importorskip("edgewise._native")
    noise = np.random.default_rng(3).integers(5, 400, 40).tolist()
    texts: list[Any] = [CODE, PROSE, noise, CODE * 3]
    want, none, _ = answers(texts, 160)
    assert none == 0
    own = f"draft:model={embedded_model()},depth=3"
    for speculator in ("ngram", "suffix", "auto", "draft", own, "suffix:width=3,n=1"):
        got, drafted, accepted = answers(texts, 160, speculator=speculator, prefill_chunk=24)
        assert got == want, speculator
        assert drafted >= accepted > 0, speculator


@pytest.mark.native
def test_a_grammar_holds_at_every_node() -> None:
    pytest.importorskip("edgewise._native")
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": ["one", "two"]}}}}
    wanted = StructuredOutputsParams(json=schema)
    params = SamplingParams(temperature=0, max_tokens=96, structured_outputs=wanted, repetition_penalty=1.1)
    found = []
    for speculator in ("none", "ngram:n=2", "suffix:width=2", f"draft:model={embedded_model()},width=2"):
        with LLM(speculator=speculator, ctx_size=256, max_num_seqs=2, threads=1) as llm:
            (result,) = llm.generate('{"a": ["one", "two", "one", "two", "one"]}\n', params)
            found.append(result.outputs[0].token_ids)
            assert (result.metrics.accepted > 0) == (speculator != "none")
    assert all(tokens == found[0] for tokens in found)


def test_a_draft_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    target = tiny_model("llama", tmp_path / "target")
    with LLM(target, device="reference", speculator=f"draft:model={target}") as llm:
        assert llm.generate("a", SamplingParams(temperature=0, max_tokens=4))
    with pytest.raises(Incompatible, match="different vocabularies: token 0 is"):
        LLM(target, device="reference", speculator=f"draft:model={embedded_model()}")


def test_bad_choices_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "target")
    for error, words, options in (
        (BadInput, "needs a model", {"speculator": "draft"}),
        (BadInput, "nowhere", {"speculator": "draft:model=/nowhere/at-all.gguf"}),
        (BadInput, "no setting 'modle'", {"speculator": "draft:modle=x"}),
        (OutOfRoom, "memory_mb=0.001", {"speculator": f"draft:model={folder},memory_mb=0.001"}),
        (Unsupported, "no verifier 'mach'", {"speculator": "ngram", "verifier": "mach"}),
        (BadInput, "is not key=value", {"speculator": "ngram:4"}),
    ):
        with pytest.raises(error, match=words):
            LLM(folder, device="reference", **options)


def test_the_server_counts_drafts() -> None:
    from edgewise.serve.http.tally import Tally

    tally = Tally()
    for drafted, accepted in ((4, 3), (0, 0), (2, 0)):
        tally.drafts(drafted, accepted)
    assert (tally.passes, tally.drafted, tally.accepted) == (2, 6, 3)


@pytest.mark.native
def test_stop_strings_inside_accepted_runs_cut_where_plain_decoding_cuts() -> None:
    pytest.importorskip("edgewise._native")
    text = 'names = ["one", "two", "three"]\n' * 4 + "names ="
    whole = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    found = []
    for speculator in ("none", "ngram:n=2,depth=9", "suffix:n=2", f"draft:model={embedded_model()},depth=7"):
        with LLM(speculator=speculator, ctx_size=256, max_num_seqs=2, threads=1) as llm:
            (free,) = llm.generate(text, whole)
            said = free.outputs[0].text
            rows = [(said, free.outputs[0].token_ids)]
            for begin, size in ((4, 3), (9, 5), (17, 2), (30, 4)):
                stop = said[begin : begin + size]
                (cut,) = llm.generate(text, SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=stop))
                out = cut.outputs[0]
                assert stop not in out.text
                assert (out.finish_reason, out.stop_reason) == ("stop", stop)
                rows.append((out.text, out.token_ids))
                assert "".join(chunk.text for chunk in llm.stream(text, SamplingParams(
                    temperature=0, max_tokens=40, ignore_eos=True, stop=stop))) == out.text  # fmt: skip
            found.append(rows)
    assert all(rows == found[0] for rows in found)


def test_serve_refuses_what_cannot_draft_before_it_listens(cli: Any, plain: Path) -> None:
    for speculator, words in (
        (f"draft:model={embedded_model()}", "different vocabularies"), ("draft", "needs a model"),
        (f"llmcad:model={embedded_model()}", "different vocabularies"), ("specmemo:cap=1kiB", "the cap is 0.0 MiB"),
        ("ngarm", "ngram"), ("ngram:n=0", "at least 1"),
    ):  # fmt: skip
        ran = cli("serve", plain, "--port", "0", "--device", "reference", "--speculator", speculator)
        assert ran.code == 2
        assert ran.err.startswith("edgewise: ")
        assert words in ran.err, (speculator, ran.err)
        assert "Traceback" not in ran.err
