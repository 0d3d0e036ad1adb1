"""Tokenizers rebuilt from GGUF metadata: equal to slow twins, and broken metadata is refused by its key."""

import random
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.testing.vocabularies import TEXT, byte_level, gguf_header, hf_header, sentencepiece
from edgewise.text import load_template, load_tokenizer
from edgewise.text.pretokenizers import PRETOKENIZERS, build
from edgewise.weights import open_checkpoint


def greedy(header, text):
    """The slow twin: merge the best-scored pair, leftmost of equals, until none is left; bytes for what is unknown."""
    get = lambda key: header.config[f"tokenizer.ggml.{key}"]  # noqa: E731
    types = header.config.get("tokenizer.ggml.token_type")
    known = {t: i for i, t in enumerate(get("tokens")) if types is None or types[i] == 1}
    scores = get("scores")
    prefix = "▁" if text and header.config.get("tokenizer.ggml.add_space_prefix", True) else ""
    parts = list(prefix + text.replace(" ", "▁"))
    while True:
        best = None
        for i in range(len(parts) - 1):
            token = known.get(parts[i] + parts[i + 1])
            if token is not None and (best is None or scores[token] > best[0]):
                best = (scores[token], i)
        if best is None:
            break
        i = best[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    out = []
    for part in parts:
        if part in known:
            out.append(known[part])
        else:
            out += [get("tokens").index(f"<0x{byte:02X}>") for byte in part.encode()]
    return out


HEADER = gguf_header(sentencepiece("mistral"), "llama")
TOKENIZER = load_tokenizer(HEADER)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("aehlnotuy LO,.é世🦙▁\n"), max_size=40))
def test_sentencepiece_merges_like_the_slow_twin(text):
    assert TOKENIZER.encode(text) == greedy(HEADER, text)


def test_sentencepiece_merges_like_the_slow_twin_on_the_sample_model(stories):
    header = open_checkpoint(stories / "stories260K-F32.gguf", need_tensors=False).header()
    config = {
        k: list(v) if k.startswith("tokenizer.ggml.") and not isinstance(v, str | int) else v
        for k, v in header.config.items()
    }
    header = replace(header, config=config)
    tokenizer = load_tokenizer(header)
    folder = load_tokenizer(open_checkpoint(stories, need_tensors=False).header())
    dice = random.Random(0)
    for text in [TEXT, "Once upon a time", *("".join(dice.choices(TEXT + " aeo", k=60)) for _ in range(100))]:
        ids = tokenizer.encode(text)
        assert ids == greedy(header, text)
        assert ids == folder.encode(text)
        assert tokenizer.decode(ids) == folder.decode(ids) == text
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.vocab) == (1, frozenset({2}), True, 512)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_random_vocabularies_merge_like_the_slow_twin(seed):
    """Vocabularies as training makes them: a token is made of two older ones and scored below them."""
    dice = random.Random(seed)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"ab▁"]
    types = [2, 3, 3, *[6] * 256, 1, 1, 1]
    scores = [0.0] * len(tokens)
    for index in range(40):
        made = dice.choice(tokens[259:]) + dice.choice(tokens[259:])
        if made not in tokens and len(made) <= 8:
            tokens.append(made)
            types.append(1)
            scores.append(-1.0 - index)
    config = {"tokens": tokens, "token_type": types, "scores": scores, "model": "llama", "add_space_prefix": False}
    header = replace(HEADER, config={f"tokenizer.ggml.{k}": v for k, v in config.items()})
    tokenizer = load_tokenizer(header)
    for _ in range(20):
        text = "".join(dice.choices("ab ", k=dice.randrange(1, 14)))
        assert tokenizer.encode(text) == greedy(header, text), text


@pytest.mark.parametrize("pre", sorted(PRETOKENIZERS))
def test_every_way_of_cutting_words_encodes_like_its_source(pre):
    source = byte_level("llama3", pre)
    made = load_tokenizer(gguf_header(source, "gpt2", pre))
    for text in (TEXT, "it's WE'LL 12345 a\tb\n\n  x", " ", "²½ x", "日本語 テスト 한국어"):
        composed = unicodedata.normalize("NFC", text) if PRETOKENIZERS[pre].nfc else text
        assert made.encode(text) == source.encode(composed, add_special_tokens=False).ids
        assert made.decode(made.encode(text)) == composed


ENDS = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")
CUTS = {
    "gpt-2": ("a1 b  c", ["a", "1", "Ġb", "Ġ", "Ġc"]),
    "llama-bpe": ("it'S 12345\n\n x", ["it", "'S", "Ġ", "123", "45", "ĊĊ", "Ġx"]),
    "qwen2": ("it'S 123\n\n x", ["it", "'S", "Ġ", "1", "2", "3", "ĊĊ", "Ġx"]),
    "smollm": ("x 12 y", ["x", "Ġ", "1", "2", "Ġy"]),
    "starcoder": ("x 12 y", ["x", "Ġ", "1", "2", "Ġy"]),
    "refact": ("x 12 y", ["x", "Ġ", "1", "2", "Ġy"]),
    "command-r": ("x 12 y", ["x", "Ġ", "1", "2", "Ġy"]),
    "falcon": ("x+=1234 y", ["x", "+=", "123", "4", "Ġy"]),
    "deepseek-coder": ("x\ny 12!!", ["x", "Ċ", "y", "Ġ", "1", "2", "!!"]),
    "deepseek-llm": ("x\ny 12!!  ", ["x", "Ċ", "y", "Ġ", "1", "2", "!!", "ĠĠ"]),
    "olmo": ("a1 b  c", ["a", "1", "Ġb", "Ġ", "Ġc"]),
    "default": ("a=1234", ["a", "=", "123", "4"]),
}


@pytest.mark.parametrize("pre", sorted(CUTS))
def test_words_are_cut_as_the_family_cuts_them(pre):
    text, words = CUTS[pre]
    assert [word for word, _ in build(PRETOKENIZERS[pre]).pre_tokenize_str(text)] == words


def test_a_word_in_the_vocabulary_is_taken_whole_where_merges_are_ignored():
    source = byte_level("llama3", "llama-bpe")
    header = gguf_header(source, "gpt2", "llama-bpe")
    tokens = [*header.config["tokenizer.ggml.tokens"], "xyzzy"]
    changed = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*header.config["tokenizer.ggml.token_type"], 1],
    }
    for pre, whole in (("llama-bpe", True), ("gpt-2", False)):
        made = load_tokenizer(replace(header, config={**header.config, **changed, "tokenizer.ggml.pre": pre}))
        assert (made.encode("xyzzy") == [len(tokens) - 1]) is whole


def test_default_ids_are_those_of_control_tokens_only():
    made = load_tokenizer(gguf_header(byte_level(), "gpt2"))
    assert (made.bos, made.eos) == (None, {byte_level().token_to_id(t) for t in ENDS})
    header = gguf_header(sentencepiece("mistral"), "llama", bos_token_id=None, eos_token_id=None)
    made = load_tokenizer(header)
    assert (made.bos, made.eos) == (1, {2})


def test_strings_of_unbelievable_length_are_refused():
    """They would make building and searching slow."""
    header = gguf_header(sentencepiece("mistral"), "llama")
    tokens, types = header.config["tokenizer.ggml.tokens"], header.config["tokenizer.ggml.token_type"]
    for kind in (1, 3):
        at = types.index(kind)
        changed = {"tokenizer.ggml.tokens": [*tokens[:at], "x" * 200_000, *tokens[at + 1 :]]}
        with pytest.raises(BadInput, match=r"at most \d+ are believable"):
            load_tokenizer(replace(header, config={**header.config, **changed}))


def test_an_unknown_way_of_cutting_words_names_the_nearest():
    with pytest.raises(Unsupported, match="Did you mean 'qwen2'"):
        load_tokenizer(gguf_header(byte_level(), "gpt2", "qwen22"))


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", "hf", "no_such"])
def test_kinds_nobody_reads_are_refused_by_name(kind):
    header = gguf_header(byte_level(), "gpt2", model=kind)
    with pytest.raises(Unsupported, match=kind):
        load_tokenizer(header)


def test_token_types_and_ends():
    source = byte_level("qwen3", "qwen2")
    id_of = source.token_to_id
    made = load_tokenizer(
        gguf_header(source, "gpt2", "qwen2", eos_token_id=id_of("<|endoftext|>"), bos_token_id=id_of("<|endoftext|>"))
    )
    assert made.eos == {id_of("<|endoftext|>"), id_of("<|im_end|>")}
    assert id_of("<|im_start|>") in made.special
    assert id_of("<think>") not in made.special
    assert not made.add_bos
    assert made.encode("<think>") == [id_of("<think>")]  # user-defined: matched in any text
    assert id_of("<|im_end|>") not in made.encode("<|im_end|>")
    assert made.encode("<|im_end|>", parse_special=True) == [id_of("<|im_end|>")]


def test_phi3_markers_swallow_the_line_break():
    header = gguf_header(sentencepiece("mistral"), "llama")
    inst = header.config["tokenizer.ggml.tokens"].index("[INST]")
    for architecture, same in (("phi3", True), ("llama", False)):
        made = load_tokenizer(replace(header, architecture=architecture))
        with_break, without = (made.encode(f"[INST]{gap}x", parse_special=True) for gap in ("\n", ""))
        assert with_break[0] == without[0] == inst
        assert (with_break == without) is same


BROKEN = {
    "tokens": [None, [], "text", 3, [1, 2], {"a": 1}],
    "token_type": [[1], "text", 3.5, ["a"], [1.5] * 10, [[1]] * 3],
    "merges": [None, "text", 7, [1], ["nospace"], [" "], ["a "], ["zz qq"], ["a b c"]],
    "pre": [3, ["gpt-2"]],
    "bos_token_id": [-1, 10**9, "1", 1.5, [1], True],
    "eos_token_id": [-1, 1 << 40, "x"],
    "add_bos_token": [1, "yes", [True]],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BROKEN.items() for v in values])
def test_broken_metadata_is_refused_by_its_key(key, value):
    with pytest.raises(BadInput, match=key):
        load_tokenizer(gguf_header(byte_level(), "gpt2", **{key: value}))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        1.0,
        [1.0],
        ["a"],
        np.zeros(3, np.float32),
        np.full(822, np.nan, np.float32),
        np.zeros(822, np.uint8),
    ],
)
def test_broken_scores_are_refused(value):
    count = len(HEADER.config["tokenizer.ggml.tokens"])
    if isinstance(value, np.ndarray) and len(value) > 3:
        value = np.resize(value, count)
    with pytest.raises(BadInput, match="scores"):
        load_tokenizer(gguf_header(sentencepiece("mistral"), "llama", scores=value))


def test_a_file_without_a_tokenizer_says_so():
    with pytest.raises(BadInput, match="carries no tokenizer"):
        load_tokenizer(replace(HEADER, config={}))
    with pytest.raises(BadInput, match=r"tokenizer\.ggml\.model"):
        load_tokenizer(replace(HEADER, config={"tokenizer.ggml.model": 3}))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_vocabularies_never_crash(data):
    """Construction and encoding with random strings, types and scores: a tokenizer or one of our errors."""
    strings = st.text(max_size=6) | st.sampled_from(["<0x00>", "<0x-1>", "<0xZZ>", "<s>", "▁", "a", "b", "ab", ""])
    tokens = data.draw(st.lists(strings, min_size=1, max_size=20))
    count = len(tokens)
    config = {
        "model": data.draw(st.sampled_from(["llama", "gpt2"])), "tokens": tokens,
        "token_type": data.draw(st.lists(st.integers(-1, 8), min_size=count, max_size=count)),
        "scores": data.draw(st.lists(st.floats(width=32), min_size=count, max_size=count)),
        "merges": data.draw(st.lists(st.sampled_from(["a b", "ab a", "x", " "]), max_size=2)),
    }  # fmt: skip
    try:
        made = load_tokenizer(replace(HEADER, config={f"tokenizer.ggml.{k}": v for k, v in config.items()}))
        ids = made.encode(data.draw(st.text(max_size=20)), add_special=True, parse_special=True)
        assert all(0 <= token < count for token in ids)
        stream = made.stream()
        assert "".join([*map(stream.push, ids), stream.flush()]) == made.decode(ids)
    except EdgewiseError:
        pass


def test_the_template_comes_with_the_file():
    header = gguf_header(byte_level("qwen3", "qwen2"), "gpt2", "qwen2", bos_token_id=5)
    assert load_template(header) is None
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    template = load_template(replace(header, config={**header.config, "tokenizer.chat_template": source}))
    assert template is not None
    assert template.render([{"role": "user", "content": "hi"}]) == header.config["tokenizer.ggml.tokens"][5] + "hi"
    with pytest.raises(BadInput, match=r"tokenizer\.chat_template"):
        load_template(replace(header, config={**header.config, "tokenizer.chat_template": 3}))


def test_both_containers_of_one_tokenizer_encode_alike(tmp_path):
    for number, (source, kind, pre) in enumerate(
        [(byte_level("llama3", "llama-bpe"), "gpt2", "llama-bpe"), (byte_level("qwen3", "qwen2"), "gpt2", "qwen2"),
         (sentencepiece("mistral"), "llama", "")]
    ):  # fmt: skip
        folder = load_tokenizer(hf_header(source, tmp_path / str(number)))
        file = load_tokenizer(gguf_header(source, kind, **({"pre": pre} if pre else {})))
        for text in (TEXT, "<|im_end|> [INST] <s>", "  a", "<think>x</think>"):
            for special in (False, True):
                assert folder.encode(text, parse_special=special) == file.encode(text, parse_special=special)
        ids = folder.encode(TEXT)
        assert folder.decode(ids) == file.decode(ids)
