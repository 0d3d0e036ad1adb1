"""What every tokenizer must do. Subclass in a test file and implement `make`."""

import random
import unicodedata

import pytest

from edgewise.base import BadInput
from edgewise.testing.vocabularies import TEXT
from edgewise.text.api import Tokenizer

PRIVATE = "\ue000"


class TokenizerContract:
    """make() → a tokenizer with at least one control token; lossless: decode(encode(text)) gives text in NFC back."""

    lossless = True

    def make(self) -> Tokenizer:
        raise NotImplementedError

    def controls(self, tokenizer: Tokenizer) -> dict[str, int]:
        """The strings of its special tokens."""
        return {tokenizer.piece(token): token for token in sorted(tokenizer.special)}

    def test_text_comes_back(self) -> None:
        tokenizer = self.make()
        strange = ("a\u0301 \U0001f9d1\u200d\U0001f680", "\x00\x7f\ufffd", "".join(map(chr, range(1, 0x341))))
        for text in (TEXT, "x", " x", "  x  y ", "\n", *strange):
            ids = tokenizer.encode(text)
            assert all(0 <= token < tokenizer.vocab for token in ids)
            if self.lossless:
                assert tokenizer.decode(ids, skip_special=False) in (text, unicodedata.normalize("NFC", text))

    def test_nothing_is_added_unasked(self) -> None:
        tokenizer = self.make()
        plain = tokenizer.encode("some text")
        assert tokenizer.encode("") == []
        assert not set(plain) & tokenizer.special
        expected = [tokenizer.bos, *plain] if tokenizer.add_bos else plain
        assert tokenizer.encode("some text", add_special=True) == expected

    def test_special_strings_are_text_unless_asked_for(self) -> None:
        tokenizer = self.make()
        found = self.controls(tokenizer)
        assert found
        for text, token in found.items():
            for around in (text, f"a{text}b", f"{text}{text}", f" {text} "):
                ids = tokenizer.encode(around)
                assert not set(ids) & tokenizer.special, around
                if self.lossless:
                    assert tokenizer.decode(ids, skip_special=False) == around
            assert token in tokenizer.encode(f"a{text}b", parse_special=True)
            broken = text[:1] + PRIVATE + text[1:] if len(text) > 1 else PRIVATE + text
            assert token not in tokenizer.encode(f"a{broken}b", parse_special=True, breaker=PRIVATE)
            assert tokenizer.decode(tokenizer.encode(f"a{broken}b", parse_special=True, breaker=PRIVATE)) == f"a{text}b"

    def test_break_up_protects_whatever_is_joined(self) -> None:
        tokenizer = self.make()
        texts = list(self.controls(tokenizer))
        dice = random.Random(3)
        for _ in range(200):
            whole = "".join(dice.choices([*texts, "<", "|", ">", "a", " "], k=6))
            cuts = sorted(dice.choices(range(len(whole) + 1), k=3))
            parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
            marked = "".join(tokenizer.break_up(part, PRIVATE) for part in parts)
            assert marked.replace(PRIVATE, "") == whole
            assert not set(tokenizer.encode(marked, parse_special=True, breaker=PRIVATE)) & tokenizer.special

    def test_streaming_equals_decoding(self) -> None:
        """Row R21: 10,000 random sequences, cut anywhere; nothing lost, nothing doubled, no broken character."""
        tokenizer = self.make()
        dice = random.Random(21)
        small = [token for token in range(tokenizer.vocab) if len(tokenizer.piece(token)) <= 6]
        for index in range(10_000):
            pool = small if index % 2 else range(tokenizer.vocab)
            ids = [pool[dice.randrange(len(pool))] for _ in range(dice.randrange(1, 14))]
            skip = bool(index & 2)
            stream = tokenizer.stream(skip_special=skip)
            parts = [stream.push(token) for token in ids]
            parts.append(stream.flush())
            for part in parts:
                part.encode("utf-8")
            assert "".join(parts) == tokenizer.decode(ids, skip_special=skip), ids

    def test_a_character_waits_for_its_last_byte(self) -> None:
        tokenizer = self.make()
        text = "a \U0001f468\u200d\U0001f469 é 世"
        stream = tokenizer.stream()
        shown = ""
        for token in tokenizer.encode(text):
            shown += stream.push(token)
            assert text.startswith(shown)
        assert shown + stream.flush() == text

    def test_bytes_of_tokens_add_up(self) -> None:
        """What each token adds to a text that goes on, characters in pieces included."""
        tokenizer = self.make()
        table = tokenizer.token_bytes()
        assert len(table) == tokenizer.vocab
        assert all(table[token] is None for token in tokenizer.special)
        first = tokenizer.encode("a")
        dice = random.Random(5)
        texts = ["a \U0001f468\u200d\U0001f469 é 世 \n  def f(x):\t", "naïve cafés 🦙"]
        drawn = [[dice.choice(range(tokenizer.vocab)) for _ in range(9)] for _ in range(300)]
        for ids in [*(tokenizer.encode(text) for text in texts), *drawn]:
            data = b"".join(table[token] or b"" for token in ids)
            kept = [token for token in ids if table[token] is not None]
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            assert tokenizer.decode([*first, *kept]) == "a" + text, ids

    def test_ids_outside_mean_nothing(self) -> None:
        tokenizer = self.make()
        assert tokenizer.decode([tokenizer.vocab, tokenizer.vocab + 9, 1 << 31, -1]) == ""
        for token in (-1, tokenizer.vocab, 1 << 40):
            with pytest.raises(BadInput, match="outside the vocabulary"):
                tokenizer.piece(token)

    def test_text_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(BadInput, match="surrogate"):
            self.make().encode("a\ud800b")
