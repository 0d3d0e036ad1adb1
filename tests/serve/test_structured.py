"""Structured output through `LLM` and `run`: the text fits, however the engine got there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewise import LLM, SamplingParams, StructuredOutputsParams
from edgewise.base import BadInput, Request
from edgewise.embedded import embedded_model
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "😀"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def held(count: int = 120, temperature: float = 0.0, **more: Any) -> SamplingParams:
    kinds = ("json", "regex", "choice", "grammar", "json_object")
    wanted = {name: more.pop(name) for name in kinds if name in more} or {"json": SCHEMA}
    wanted = StructuredOutputsParams(**wanted)
    return SamplingParams(max_tokens=count, temperature=temperature, structured_outputs=wanted, **more)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(embedded_model(), threads=1) as made:
        yield made


def test_what_was_asked_for_is_what_comes(llm: LLM) -> None:
    hot = {"temperature": 1.2, "seed": 3, "n": 3}
    for out in llm.generate("x = ", held(**hot))[0].outputs:
        value = json.loads(out.text)
        assert set(value) == {"name", "age", "tags"}
        assert 0 <= value["age"] <= 120
        assert out.finish_reason == "stop"
    for out in llm.generate("x = ", held(regex=r" ?[A-Z]{2}/[0-9]{3}é", **hot))[0].outputs:
        assert re.fullmatch(r" ?[A-Z]{2}/[0-9]{3}é", out.text)
    for out in llm.generate("x = ", held(choice=["nö", " maybe 😀"], **hot))[0].outputs:
        assert out.text in ("nö", " maybe 😀")
    for out in llm.generate("x = ", held(grammar='root ::= "<" [a-c]{3} ">"', **hot))[0].outputs:
        assert re.fullmatch("<[abc]{3}>", out.text)


def test_schemas_of_every_shape_are_kept_to(llm: LLM) -> None:
    from edgewise.serve.benches.structured import answered
    from edgewise.testing.schemas import SCHEMAS

    assert len({json.dumps(schema, sort_keys=True) for _, schema in SCHEMAS}) == 200
    found = answered(llm, 25)  # `edgewise bench structured` takes all of them
    assert found == {"schemas": 25, "valid": 25, "cut": [], "wrong": []}


def test_the_cost_of_masks_is_measured(llm: LLM) -> None:
    from edgewise.serve.benches.structured import timed

    row = timed(llm, 2, 6)
    assert row["sequences"] == 2
    assert row["steps"] > 0
    assert 0 < row["share_median"] < 1


def test_each_sequence_of_a_batch_has_its_own(llm: LLM) -> None:
    kinds = [held(), held(choice=["yes", "no"]), SamplingParams(temperature=0, max_tokens=9), held(regex="[0-9]{4}")]
    together = llm.generate(["a", "b", "c", "d"], kinds)
    alone = [llm.generate(text, params)[0] for text, params in zip("abcd", kinds, strict=True)]
    assert [one.outputs[0].token_ids for one in together] == [one.outputs[0].token_ids for one in alone]
    assert set(json.loads(together[0].outputs[0].text)) == {"name", "age", "tags"}


def test_what_max_tokens_cuts_says_length(llm: LLM) -> None:
    out = llm.generate("x = ", held(5))[0].outputs[0]
    assert (out.finish_reason, len(out.token_ids)) == ("length", 5)
    assert llm.generate("x = ", held())[0].outputs[0].text.startswith(out.text)


def test_law_1_holds(llm: LLM) -> None:
    """Greedy text with a grammar: the same alone, in chunks, in a crowd, after known prefixes, and when preempted."""
    prompts = [f"def f{at}(x):\n    return " + "x + " * (9 * at) for at in range(5)]
    want = [llm.generate(prompt, held())[0].outputs[0].token_ids for prompt in prompts]
    again = llm.generate(prompts, held())  # every prompt is known by now
    assert [one.outputs[0].token_ids for one in again] == want
    for options in ({"prefill_chunk": 7, "max_num_seqs": 2}, {"page_tokens": 32, "max_num_seqs": 5},
                    {"speculator": "ngram", "verifier": "match"}):  # fmt: skip
        with LLM(embedded_model(), threads=2, **options) as other:
            assert [one.outputs[0].token_ids for one in other.generate(prompts, held())] == want


def test_it_goes_on_after_preemption(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"# {at} " + "word " * 20 for at in range(4)]
    params = held(200, json={"type": "array", "items": SCHEMA, "minItems": 3, "maxItems": 3})
    want = [llm.generate(prompt, params)[0].outputs[0].token_ids for prompt in prompts]
    with LLM(embedded_model(), threads=1, ctx_size=256, max_num_seqs=1) as small:
        engine = small.parts.engine
        engine.sequences = 4
        for at, prompt in enumerate(prompts):
            engine.add(Request(tuple(small.tokenizer.encode(prompt, add_special=True)), params, str(at)))
        got: dict[str, list[int]] = {}
        while engine.has_work():
            for event in engine.step():
                assert event.error is None
                got.setdefault(event.request_id, []).extend(event.tokens)
        assert engine.preempted > 0
    assert [got[str(at)] for at in range(4)] == want


def test_a_model_without_words_says_so(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with LLM(folder, device="reference") as mute, pytest.raises(BadInput, match="no tokenizer"):
        mute.generate([5, 6], held())


def test_the_end_of_a_prompt_is_not_said_twice() -> None:
    """Where characters are made of byte tokens, the stream holds the prompt's last one back."""
    from edgewise.serve.outputs import Collector
    from edgewise.testing.vocabularies import gguf_header, sentencepiece
    from edgewise.text import load_tokenizer

    words = load_tokenizer(gguf_header(sentencepiece(), "llama"))
    from edgewise.base import Event

    for prompt, answer in (("a\n😀", "b"), ("a 世", "界 b"), ("a", " b")):
        ids = words.encode(prompt)
        whole = words.encode(prompt + answer)
        assert whole[: len(ids)] == ids
        collector = Collector(None, ids, SamplingParams(), words, lambda: 0.0)
        for token in whole[len(ids) :]:
            collector.take(Event("x", (token,)))
        collector.take(Event("x", (), (), "length"))
        assert collector.result("x").outputs[0].text == answer


FLAGS = [
    (["--regex", "[0-9]{3}"], r"[0-9]{3}\n"), (["--choice", "yes", "--choice", "no"], r"(yes|no)\n"),
    (["--grammar-file", "g.lark"], r"a(x|y)\n"), (["--json-schema", "s.json"], r"(true|false)\n"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "text"), FLAGS, ids=str)
def test_flags_of_run(cli: Any, tmp_path: Path, flags: list[str], text: str) -> None:
    (tmp_path / "g.lark").write_text('start: "a" ("x" | "y")')
    (tmp_path / "s.json").write_text('{"type": "boolean"}')
    named = [str(tmp_path / flag) if flag.endswith((".lark", ".json")) else flag for flag in flags]
    ran = cli("run", "--prompt", "a = ", "--temp", 0, "-n", 20, *named)
    assert re.fullmatch(text, ran.out), ran


def test_flags_that_exclude_each_other(cli: Any) -> None:
    ran = cli("run", "--prompt", "a", "--regex", "a", "--choice", "b")
    assert ran.code == 2
    assert "exclude" in ran.err
    ran = cli("run", "--prompt", "a", "--regex", "(")
    assert ran.code == 2
    assert "unclosed" in ran.err
