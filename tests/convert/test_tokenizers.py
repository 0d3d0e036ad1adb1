"""Tokenizer metadata: the name of each way to cut words is found again, and both containers encode alike."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgewise.base import Unsupported
from edgewise.convert.converting import convert
from edgewise.convert.gguf_tokenizer import pre_name
from edgewise.convert.vocabulary import make_tokenizer
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.text.pretokenizers import words_of

pytestmark = pytest.mark.native
NAMES = (
    "gpt-2", "llama-bpe", "qwen2", "smollm", "deepseek-llm", "deepseek-coder", "starcoder", "refact", "falcon",
    "command-r", "olmo",
)  # fmt: skip
TEXT = "It's we'LL 1234567 naïve e\u0301\n\n  two  x==y 日本 🦙 <|endoftext|> a</s>b"


@pytest.mark.parametrize("name", NAMES)
def test_the_way_words_are_cut_is_recognised(name):
    found = pre_name(make_tokenizer(300, name), words_of(name).ignore_merges)
    assert words_of(found) == words_of(name)


def test_an_unknown_way_is_refused():
    tokenizer = make_tokenizer(300, "gpt-2")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel()])
    with pytest.raises(Unsupported, match="no name"):
        pre_name(tokenizer, False)


def test_both_containers_encode_alike(tmp_path):
    folder = tiny_model("qwen2", tmp_path / "hf", vocab_size=1000)
    make_tokenizer(1000, "qwen2").save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}')
    convert(folder, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="safetensors")
    llms = [LLM(path, device="reference") for path in (folder, tmp_path / "m.gguf", tmp_path / "back")]
    ids = [llm.tokenize(TEXT) for llm in llms]
    assert ids[0] == ids[1] == ids[2]
    assert llms[1].detokenize(ids[1]) == llms[0].detokenize(ids[0])


def sentencepiece(prefix):
    """A small BPE in SentencePiece's manner: byte fallback, a mark for spaces, merges in order of rank."""
    specials = ["<unk>", "<s>", "</s>"]
    pieces = specials + [f"<0x{i:02X}>" for i in range(256)] + list("\u2581abehlorw")
    merges = [("l", "l"), ("h", "e"), ("\u2581", "he"), ("\u2581he", "ll"), ("o", "r"), ("\u2581hell", "o")]
    pieces += [a + b for a, b in merges]
    model = models.BPE(
        vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    space = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space]) if prefix else space
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    tokenizer.add_special_tokens(specials)
    return tokenizer, len(pieces)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_vocabularies_survive(prefix, tmp_path):
    tokenizer, vocab = sentencepiece(prefix)
    folder = tiny_model("llama", tmp_path / "hf", vocab_size=vocab + 5)  # an embedding padded beyond the vocabulary
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": true}'
    )
    convert(folder, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="safetensors")
    llms = [LLM(path, device="reference") for path in (folder, tmp_path / "m.gguf", tmp_path / "back")]
    for text in ("hello world", " hello  hell", "wörld\n日本 heo </s>"):
        ids = [llm.tokenize(text) for llm in llms]
        assert ids[0] == ids[1] == ids[2]
        assert len({llm.detokenize(ids[0]) for llm in llms}) == 1
