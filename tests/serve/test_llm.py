"""`LLM` on tiny models: shapes, text and tokens that agree, stops, streams, refusals."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import LLM, SamplingParams
from edgewise.base import BadInput, Incompatible, OutOfRoom, Unsupported
from edgewise.testing.tiny import tiny_model

ASCII = tuple(range(3 + 32, 3 + 127))  # the tiny tokenizer's ids are 3 specials, then the bytes
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[it]{% endif %}"


def free(**settings: Any) -> SamplingParams:
    """Greedy unless told otherwise, printable, and without an end of its own."""
    usual = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "allowed_token_ids": ASCII}
    return SamplingParams(**usual | settings)


GREEDY = free()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")
    (path / "chat_template.jinja").write_text(CHAT)
    return path


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, device="reference") as model:
        yield model


def test_batch_in_batch_out(llm: LLM) -> None:
    results = llm.generate(["Hello", "Good morning", ""], GREEDY)
    assert [r.prompt for r in results] == ["Hello", "Good morning", ""]
    assert [r.prompt_token_ids[0] for r in results] == [1, 1, 1]  # BOS, which is all of the empty prompt
    for result in results:
        (alone,) = llm.generate(result.prompt_token_ids, GREEDY)
        assert alone.outputs[0].token_ids == result.outputs[0].token_ids
        assert alone.prompt is None
        output = result.outputs[0]
        assert (output.finish_reason, output.index, len(output.token_ids)) == ("length", 0, 12)
        assert result.metrics.prompt_tokens == len(result.prompt_token_ids)
        assert result.metrics.completion_tokens == 12
        assert 0 < result.metrics.ttft_s <= result.metrics.total_s
        assert result.metrics.tok_s > 0


def test_every_form_of_a_prompt(llm: LLM) -> None:
    ids = llm.tokenize("Hello")
    want = llm.generate([ids], GREEDY)[0].outputs[0].token_ids
    forms: list[Any] = [ids, tuple(ids), np.array(ids), [np.array(ids)], {"prompt_token_ids": ids}, [ids]]
    for form in forms:
        assert llm.generate(form, GREEDY)[0].outputs[0].token_ids == want
    assert llm.generate([]) == []
    with pytest.raises(BadInput, match="chat"):
        llm.generate([{"role": "user", "content": "x"}], GREEDY)
    with pytest.raises(BadInput, match="integers"):
        llm.generate([[1.5]], GREEDY)  # type: ignore[list-item]


def test_params_one_for_all_or_one_each(llm: LLM) -> None:
    results = llm.generate(["a", "b"], [GREEDY, free(temperature=1, max_tokens=3, seed=1)])
    assert [len(r.outputs[0].token_ids) for r in results] == [12, 3]
    with pytest.raises(BadInput, match="2 prompts but 1 SamplingParams"):
        llm.generate(["a", "b"], [GREEDY])
    assert len(llm.generate("a")[0].outputs[0].token_ids) <= 16


def test_n_samples(llm: LLM) -> None:
    (result,) = llm.generate("a", free(temperature=1, n=3, seed=4, max_tokens=8))
    assert [o.index for o in result.outputs] == [0, 1, 2]
    assert len({tuple(o.token_ids) for o in result.outputs}) == 3
    assert result.metrics.completion_tokens == 24


def test_seed_reproduces_in_any_batch(llm: LLM) -> None:
    params = free(temperature=1, seed=3, max_tokens=10)
    (alone,) = llm.generate("abc", params)
    crowd = llm.generate(["x", "abc", "yy", "z"], [GREEDY, params, GREEDY, free(temperature=1, max_tokens=9)])
    assert crowd[1].outputs[0].token_ids == alone.outputs[0].token_ids


def test_stop_string_is_cut_and_tokens_agree(llm: LLM) -> None:
    (whole,) = llm.generate("Hello", free(max_tokens=40))
    text = whole.outputs[0].text
    for start, length in ((3, 1), (7, 3), (len(text) - 4, 4)):
        stop = text[start : start + length]
        cut = text.index(stop)
        (got,) = llm.generate("Hello", free(max_tokens=40, stop=[stop, "never"]))
        output = got.outputs[0]
        assert (output.text, output.finish_reason, output.stop_reason) == (text[:cut], "stop", stop)
        spelt = llm.detokenize(output.token_ids)
        assert spelt.startswith(output.text)
        assert stop in spelt
        assert output.token_ids == whole.outputs[0].token_ids[: len(output.token_ids)]
        pieces = list(llm.stream("Hello", free(max_tokens=40, stop=stop)))
        assert "".join(p.text for p in pieces) == output.text
    assert not llm.parts.engine.has_work() or not llm.parts.engine.step()[0].tokens


def test_stop_waits_for_min_tokens(llm: LLM) -> None:
    (whole,) = llm.generate("Hello", GREEDY)
    first = whole.outputs[0].text[0]
    params = free(max_tokens=12, stop=first, min_tokens=5)
    assert len(llm.generate("Hello", params)[0].outputs[0].token_ids) > 5


def test_stop_token_is_in_the_ids_but_not_in_the_text(llm: LLM) -> None:
    (whole,) = llm.generate("Hello", GREEDY)
    ids = whole.outputs[0].token_ids
    end = next(i for i in range(2, 12) if ids[i] not in ids[:i])
    (got,) = llm.generate("Hello", free(max_tokens=12, stop_token_ids=[ids[end]]))
    output = got.outputs[0]
    assert (output.token_ids, output.finish_reason, output.stop_reason) == (ids[: end + 1], "stop", ids[end])
    (shorter,) = llm.generate("Hello", free(max_tokens=end))
    assert output.text == shorter.outputs[0].text


def test_stream_equals_generate(llm: LLM) -> None:
    (want,) = llm.generate("Hello", free(temperature=1, seed=1, max_tokens=30))
    chunks = list(llm.stream("Hello", free(temperature=1, seed=1, max_tokens=30)))
    assert "".join(c.text for c in chunks) == want.outputs[0].text
    assert [t for c in chunks for t in c.token_ids] == want.outputs[0].token_ids
    assert [c.finish_reason for c in chunks][-1] == "length"
    assert all(c.finish_reason is None and c.metrics is None for c in chunks[:-1])
    assert chunks[-1].metrics is not None
    assert chunks[-1].metrics.completion_tokens == 30


def test_leaving_a_stream_cancels(llm: LLM) -> None:
    room = llm.parts.kv.free_tokens()
    for count, _ in enumerate(llm.stream("Hello", free(max_tokens=100)), 1):
        if count == 3:
            break
    assert llm.parts.kv.free_tokens() == room
    with pytest.raises(BadInput, match="token id 9999"):
        llm.stream([9999])  # said at the call, not at the first piece


def test_streams_interleave(llm: LLM) -> None:
    params = free(temperature=1, seed=1, max_tokens=20)
    want = [llm.generate(p, params)[0].outputs[0].text for p in ("one", "two")]
    streams = [llm.stream(p, params) for p in ("one", "two")]
    got = ["", ""]
    for _ in range(20):
        for at, stream in enumerate(streams):
            got[at] += next(stream).text
    assert got == want


def test_threads_share_one_model(llm: LLM) -> None:
    prompts = [f"prompt {i}" for i in range(6)]
    want = [llm.generate(p, GREEDY)[0].outputs[0].token_ids for p in prompts]
    got: dict[int, list[int]] = {}

    def work(at: int) -> None:
        got[at] = llm.generate(prompts[at], GREEDY)[0].outputs[0].token_ids

    threads = [threading.Thread(target=work, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[at] for at in range(6)] == want


def test_logprobs(llm: LLM) -> None:
    params = free(max_tokens=4, logprobs=2)
    output = llm.generate("ab", params)[0].outputs[0]
    assert output.logprobs is not None
    logits = llm.logits([*llm.generate("ab", params)[0].prompt_token_ids, *output.token_ids]).astype(np.float64)
    for at, (token, entries) in enumerate(zip(output.token_ids, output.logprobs, strict=True)):
        row = logits[at - 5]
        want = row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
        assert entries[token].logprob == pytest.approx(want, rel=1e-9)
        assert 2 <= len(entries) <= 3
        assert next(iter(entries.values())).rank == 1
    chosen = [e[t].logprob for t, e in zip(output.token_ids, output.logprobs, strict=True)]
    assert output.cumulative_logprob == pytest.approx(sum(chosen))


def test_chat_has_openai_s_shape(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hi </s> there"}]
    answer = llm.chat(messages, free(max_tokens=5, logprobs=1, n=2))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == llm.name
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    assert len(choice["logprobs"]["content"]) == 5
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 1
    tokens = llm.chat_tokens(messages)
    assert answer["usage"] == {
        "prompt_tokens": len(tokens), "completion_tokens": 10, "total_tokens": len(tokens) + 10
    }  # fmt: skip
    assert 2 not in tokens  # "</s>" in a message stays text
    json.dumps(answer)
    streamed = "".join(c.text for c in llm.stream(messages, free(max_tokens=5)))
    assert streamed == choice["message"]["content"]
    with pytest.raises(BadInput, match="not a list of messages"):
        llm.stream("text", GREEDY, enable_thinking=True)


def test_logits(llm: LLM) -> None:
    ids = llm.tokenize("some text of a few tokens")
    logits = llm.logits(ids)
    assert logits.shape == (len(ids), llm.parts.spec.vocab)
    assert logits.dtype == np.float32
    chunks = [c.copy() for c in llm.logits_chunks(ids)]
    assert np.array_equal(np.concatenate(chunks), logits)
    token = int(logits[-1].argmax())
    assert llm.generate([ids], free(max_tokens=1, allowed_token_ids=None))[0].outputs[0].token_ids == [token]
    for bad in ([], [-1], [10**6]):
        with pytest.raises(BadInput):
            llm.logits(bad)


def test_tokenize_and_back(llm: LLM) -> None:
    assert 1 not in llm.tokenize("Hello <s>")  # neither BOS nor a special token that the text spells
    assert llm.detokenize(llm.tokenize("Hello <s> wörld")) == "Hello <s> wörld"


# ── refusals: one sentence each ─────────────────────────────────────────────────────────


def test_options_are_checked_by_name(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no option 'ctx_sizes'\. Did you mean 'ctx_size'"):
        LLM(folder, ctx_sizes=3)
    with pytest.raises(Unsupported, match="Did you mean 'reference'"):
        LLM(folder, device="referense")
    with pytest.raises(Unsupported, match="no KV cache type 'f17'"):
        LLM(folder, device="reference", kv_cache_dtype="f17")
    with pytest.raises(Unsupported, match=r"no policy 'fcsf'\. Did you mean 'fcfs'"):
        LLM(folder, device="reference", policy="fcsf")
    with pytest.raises(BadInput, match="swap is '/no/such/folder'"):
        LLM(folder, device="reference", swap="/no/such/folder")
    with pytest.raises(BadInput, match="multiple of 16"):
        LLM(folder, device="reference", page_tokens=24)
    with pytest.raises(Unsupported, match="no speculator 'nosuch'"):
        LLM(folder, device="reference", speculator="nosuch")


def test_context(folder: Path) -> None:
    with LLM(folder, device="reference", max_model_len=20) as llm:
        assert llm.context == 20
        with pytest.raises(BadInput, match="30 tokens but the context holds 20"):
            llm.generate([[5] * 30], GREEDY)
        output = llm.generate([[5] * 15], free(max_tokens=None))[0].outputs[0]
        assert (len(output.token_ids), output.finish_reason) == (5, "length")
        assert llm.generate([[5] * 30, [5]][1:], GREEDY)[0].outputs[0].finish_reason == "length"
    with LLM(folder, device="reference", ctx_size=0) as llm:
        assert llm.context == 512
    with pytest.raises(BadInput, match=r"ctx_size is 600 but .* 512 tokens"):
        LLM(folder, device="reference", ctx_size=600)


def test_a_refused_batch_leaves_nothing_behind(llm: LLM) -> None:
    room = llm.parts.kv.free_tokens()
    with pytest.raises(BadInput, match="token id 999"):
        llm.generate([[1, 2], [999]], GREEDY)
    llm.generate([[1]], GREEDY)
    assert llm.parts.kv.free_tokens() == room
    assert not llm.parts.engine.has_work()


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "m", vocab_size=200)
    with pytest.raises(BadInput, match="259 tokens but the embedding has 200 rows"):
        LLM(path, device="reference")


def test_model_without_tokenizer_takes_ids(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink(missing_ok=True)
    with LLM(path, device="reference") as llm:
        assert len(llm.generate([[1, 2]], free(max_tokens=3))[0].outputs[0].token_ids) <= 3
        with pytest.raises(BadInput, match="carries no tokenizer"):
            llm.generate("text")
        with pytest.raises(BadInput, match="stop_token_ids"):
            llm.generate([[1]], SamplingParams(stop="x"))
        with pytest.raises(BadInput, match="empty"):
            llm.generate([[]])


def test_memory_is_checked_with_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.kernels.api import DeviceInfo
    from edgewise.kernels.devices.reference import ReferenceDevice

    class Small(ReferenceDevice):
        def __init__(self, threads: int | None = None) -> None:
            super().__init__(threads)
            self.info = DeviceInfo("small", "numpy", 1, 400_000)

    monkeypatch.setattr("edgewise.assemble.DEVICES.load", lambda name: Small)
    with pytest.raises(OutOfRoom, match=r"GiB for its weights and .* GiB for 512 tokens of f32 KV cache"):
        LLM(folder)


def test_caps_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.base import Cap
    from edgewise.decode.speculators.none import NoSpeculator

    monkeypatch.setattr(NoSpeculator, "needs", frozenset({Cap.EXACT}))
    with pytest.raises(Incompatible, match="'none' needs EXACT; kv 'paged' gives EXPORT, FORK, REWIND, TREE"):
        LLM(folder, device="reference")


def test_kv_type_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    with LLM(folder, device="reference") as llm:
        assert llm.parts.kv_dtype == "f32"
    with LLM(tiny_model("llama", tmp_path / "half", dtype="F16"), device="reference") as llm:
        assert llm.parts.kv_dtype == "f16"
    with LLM(folder, device="reference", kv_cache_dtype="bfloat16") as llm:
        assert llm.parts.kv_dtype == "bf16"


def test_an_int8_cache_is_half_as_large_or_says_why_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(folder, device="reference", kv_cache_dtype="f16") as llm:
        half = llm.parts.kv_bytes
    with LLM(folder, device="reference", kv_cache_dtype="int8", policy="auto", swap="auto") as llm:
        spec = llm.parts.spec
        assert llm.parts.kv_dtype == "int8"
        assert llm.parts.kv_bytes == half * (spec.head_dim + 2) / (2 * spec.head_dim)
        assert llm.generate([[5] * 30], GREEDY)[0].outputs[0].finish_reason == "length"
    monkeypatch.setattr("edgewise.plan.narrow_kv.MOST_NATS", -1.0)
    with pytest.warns(UserWarning, match="int8 KV cache is off, f32 is used"):
        llm = LLM(folder, device="reference", kv_cache_dtype="int8")
    assert llm.parts.kv_dtype == "f32"
    llm.close()


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({}, {"temperature": 0.7}),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, {"temperature": 0.6, "top_k": 20}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"repetition_penalty": 1.1, "max_new_tokens": 7}, {"repetition_penalty": 1.1, "max_tokens": 7}),
    ],
    ids=str,
)
def test_default_params_come_from_the_checkpoint(tmp_path: Path, config: dict[str, Any], want: dict[str, Any]) -> None:
    path = tiny_model("llama", tmp_path / "m")
    (path / "generation_config.json").write_text(json.dumps(config))
    with LLM(path, device="reference") as llm:
        params = llm.default_params()
        assert {key: getattr(params, key) for key in want} == want


def test_bad_generation_config_is_named(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "m")
    (path / "generation_config.json").write_text('{"top_p": 7}')
    with LLM(path, device="reference") as llm, pytest.raises(BadInput, match=r"generation_config.json of .*top_p must"):
        llm.generate("x")


def test_closed(folder: Path) -> None:
    llm = LLM(folder, device="reference")
    stream = llm.stream("abc", free(max_tokens=50))
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(BadInput, match="was closed"):
        llm.generate("x")
    with pytest.raises(BadInput, match="was closed"):
        next(stream)
