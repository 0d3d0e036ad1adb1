"""Every kind of tokenizer does what a tokenizer must, and decodes as `tokenizers` does."""

import os
import random
from pathlib import Path

import pytest

from edgewise.testing.tokenizer_contract import TokenizerContract
from edgewise.testing.vocabularies import byte_level, gguf_header, hf_header, sentencepiece
from edgewise.text import load_tokenizer
from edgewise.weights.api import Header

BOS = byte_level("llama3").token_to_id("<|begin_of_text|>")
SHARED = Path(os.environ.get("EDGEWISE_SHARED", Path(__file__).parents[3] / "shared"))


class HfContract(TokenizerContract):
    @pytest.fixture(autouse=True)
    def _build(self, tmp_path):
        self.reference = self.build()
        self.tokenizer = load_tokenizer(hf_header(self.reference, tmp_path / "m", **self.config()))

    def config(self):
        return {}

    def make(self):
        return self.tokenizer

    def test_decoding_equals_the_library(self):
        dice = random.Random(1)
        for index in range(10_000):
            ids = [dice.randrange(self.tokenizer.vocab) for _ in range(dice.randrange(1, 12))]
            skip = bool(index & 1)
            assert self.tokenizer.decode(ids, skip_special=skip) == self.reference.decode(ids, skip_special_tokens=skip)


class TestHfByteLevel(HfContract):
    def build(self):
        return byte_level("llama3")

    def test_the_post_processor_says_that_bos_is_expected(self, tmp_path):
        made = load_tokenizer(hf_header(byte_level("llama3"), tmp_path / "x", bos_token="<|begin_of_text|>"))
        assert made.add_bos


class TestHfQwen(HfContract):
    def build(self):
        return byte_level("qwen3", "qwen2")

    def config(self):
        return {"eos_token": "<|im_end|>", "add_bos_token": False}


class TestHfDeepseek(HfContract):
    def build(self):
        return byte_level("deepseek", "deepseek-llm")

    def config(self):
        return {"bos_token": {"content": "<｜begin▁of▁sentence｜>"}, "add_bos_token": True}


class TestHfLlama2(HfContract):
    def build(self):
        return sentencepiece("mistral", "prepend")

    def config(self):
        return {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}


class TestHfMistral(HfContract):
    def build(self):
        return sentencepiece("mistral", "first")

    lossless = False  # its own rule: one leading space is lost


class TestHfGemma(HfContract):
    def build(self):
        return sentencepiece("gemma", "none")


class TestGgufByteLevel(TokenizerContract):
    def make(self):
        return load_tokenizer(gguf_header(byte_level("llama3"), "gpt2", bos_token_id=BOS, add_bos_token=True))


class TestGgufSentencepiece(TokenizerContract):
    def make(self):
        return load_tokenizer(gguf_header(sentencepiece("mistral"), "llama"))


class TestGgufWithoutPrefix(TokenizerContract):
    def make(self):
        return load_tokenizer(gguf_header(sentencepiece("mistral", "none"), "llama", add_space_prefix=False))


@pytest.mark.skipif(not (SHARED / "models" / "stories260K").is_dir(), reason="shared/models/stories260K is absent")
class TestStories(TokenizerContract):
    def make(self):
        return load_tokenizer(Header("hf", "llama", {}, (), SHARED / "models" / "stories260K", {}, "stories260K"))
