"""Byte-level BPE rebuilt from a GGUF file: GPT-2's alphabet, the file's merges, the family's way of cutting words.

Paper: https://arxiv.org/abs/1508.07909 (BPE), GPT-2's byte alphabet.
Exact. Equals the published tokenizer of the family, and llama.cpp on its own vocabulary tests.
Needs: tokenizer.ggml.tokens, merges, pre.
Cost: some 20 ms for 128,000 tokens; 0.4 s and 80 MB more when long or many texts are encoded (text/excerpts.py).
Status: kept.
"""

from collections.abc import Iterable, Mapping

import tokenizers
from tokenizers import models, normalizers

from edgewise.base import BadInput
from edgewise.kernels.parsing import Strings
from edgewise.kernels.pieces import Pieces, pairs_within
from edgewise.text.detokenise import byte_alphabet
from edgewise.text.excerpts import Excerpts
from edgewise.text.gguf import PREFIX, Fields
from edgewise.text.pretokenizers import build, words_of
from edgewise.text.tokenizer import Parts, RustTokenizer, added_tokens
from edgewise.weights.api import Header

_CHAR_OF = dict(enumerate(byte_alphabet()))


class Gpt2Tokenizer(RustTokenizer):
    """Kind `gpt2`."""

    def __init__(self, header: Header) -> None:
        fields = Fields(header)
        pre = fields.get("pre")
        if pre is not None and not isinstance(pre, str):
            raise BadInput(f"{PREFIX}pre must be a string but is {pre!r}.")
        words = words_of(pre or "default")
        cutter, composer = build(words), normalizers.NFC()
        bos, eos = fields.default_id("bos_token_id", 11), fields.default_id("eos_token_id", 11)
        keyed = [fields.token_id(f"{name}_token_id") for name in ("bos", "eos", "eot", "eom")]
        control, user = fields.control(keyed), fields.user()

        def make(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
            model = models.BPE(vocab=vocab, merges=merges, fuse_unk=False, ignore_merges=words.ignore_merges)
            backend = tokenizers.Tokenizer(model)
            if words.nfc:
                backend.normalizer = composer
            backend.pre_tokenizer = cutter
            backend.add_tokens(added_tokens(user, special=False))
            backend.add_special_tokens(added_tokens(control, special=True))
            return backend

        def excerpt(text: str) -> tokenizers.Tokenizer | None:
            """A tokenizer that is right for this text: BPE asks only for strings that its words contain."""
            if words.nfc and not text.isascii():
                composed = composer.normalize_str(text)
                if composed != text and user:  # characters are not composed across an added token
                    return None
                text = composed
            assert isinstance(pieces, Pieces)
            assert lines is not None
            form = text.encode("utf-8").decode("latin-1").translate(_CHAR_OF).encode("utf-8")
            texts = [fields.tokens[i] for i in pieces.within(form).tolist()]
            texts += [token.text for token in (*control, *user)]
            pairs = [_pair(index, lines[index]) for index in pairs_within(lines, form).tolist()]
            return make({text: pieces[text] for text in texts}, pairs)

        pieces, lines = fields.ids, fields.table("merges")
        if isinstance(pieces, Pieces) and lines is not None:
            _check(pieces, lines)
            backend = Excerpts(lambda: make(fields.all_ids(), _merges(fields)), excerpt)
        else:
            backend = Excerpts.of(make(fields.all_ids(), _merges(fields)))
        super().__init__(
            Parts(
                backend=backend, vocab=len(fields.tokens), bos=bos, eos=fields.ends(eos),
                special=frozenset(token.id for token in control), control=tuple(control), matched=tuple(user),
                add_bos=fields.flag("add_bos_token", words.bos), decoder={"type": "ByteLevel"}, piece=fields.piece,
                pieces=fields.tokens,
            )
        )  # fmt: skip


def _pair(index: int, line: str) -> tuple[str, str]:
    cut = line.find(" ", 1)
    left, right = line[:cut], line[cut + 1 :]
    if cut < 1 or not right:
        raise BadInput(f"{PREFIX}merges[{index}] is {line!r}, not two strings with a space between.")
    return left, right


def _check(pieces: Pieces, lines: Strings) -> None:
    """Raises BadInput for the first line that is no pair or makes no token."""
    bad = pieces.first_bad_pair(lines)
    if bad is not None:
        _checked(pieces, [(bad, lines[bad])])


def _merges(fields: Fields) -> list[tuple[str, str]]:
    """Pairs in order of priority. Raises BadInput for an entry that is no pair or makes no token."""
    lines = fields.strings("merges")
    if lines is None:
        raise BadInput(f"{fields.name}: {PREFIX}merges is missing, so the vocabulary cannot be used.")
    return _checked(fields.all_ids(), enumerate(lines))


def _checked(ids: Mapping[str, int], lines: Iterable[tuple[int, str]]) -> list[tuple[str, str]]:
    pairs = []
    for index, line in lines:
        left, right = _pair(index, line)
        if left not in ids or right not in ids or left + right not in ids:
            raise BadInput(f"{PREFIX}merges[{index}] is {line!r}, which names strings that {PREFIX}tokens lacks.")
        pairs.append((left, right))
    return pairs
