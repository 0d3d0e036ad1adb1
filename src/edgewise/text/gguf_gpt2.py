"""Byte-level BPE rebuilt from a GGUF file: GPT-2's alphabet, the file's merges, the family's way of cutting words.

Paper: https://arxiv.org/abs/1508.07909 (BPE), GPT-2's byte alphabet.
Exact. Equals the published tokenizer of the family, and llama.cpp on its own vocabulary tests.
Needs: tokenizer.ggml.tokens, merges, pre.
Cost: about 0.5 s and 80 MB for 128,000 tokens.
Status: kept.
"""

import tokenizers
from tokenizers import models, normalizers

from edgewise.base import BadInput
from edgewise.text.gguf import PREFIX, Fields
from edgewise.text.pretokenizers import build, words_of
from edgewise.text.tokenizer import Parts, RustTokenizer, added_tokens
from edgewise.weights.api import Header


class Gpt2Tokenizer(RustTokenizer):
    """Kind `gpt2`."""

    def __init__(self, header: Header) -> None:
        fields = Fields(header)
        pre = fields.get("pre")
        if pre is not None and not isinstance(pre, str):
            raise BadInput(f"{PREFIX}pre must be a string but is {pre!r}.")
        words = words_of(pre or "default")
        model = models.BPE(vocab=fields.ids, merges=_merges(fields), fuse_unk=False, ignore_merges=words.ignore_merges)
        backend = tokenizers.Tokenizer(model)
        if words.nfc:
            backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = build(words)
        bos, eos = fields.default_id("bos_token_id", 11), fields.default_id("eos_token_id", 11)
        keyed = [fields.token_id(f"{name}_token_id") for name in ("bos", "eos", "eot", "eom")]
        control, user = fields.control(keyed), fields.user()
        backend.add_tokens(added_tokens(user, special=False))
        backend.add_special_tokens(added_tokens(control, special=True))
        super().__init__(
            Parts(
                backend=backend, vocab=len(fields.tokens), bos=bos, eos=fields.ends(eos),
                special=frozenset(token.id for token in control), control=tuple(control), matched=tuple(user),
                add_bos=fields.flag("add_bos_token", words.bos), decoder={"type": "ByteLevel"}, piece=fields.piece,
            )
        )  # fmt: skip


def _merges(fields: Fields) -> list[tuple[str, str]]:
    """Pairs in order of priority. Raises BadInput for an entry that is no pair or makes no token."""
    lines = fields.strings("merges")
    if lines is None:
        raise BadInput(f"{fields.name}: {PREFIX}merges is missing, so the vocabulary cannot be used.")
    pairs = []
    for index, line in enumerate(lines):
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if cut < 1 or not right:
            raise BadInput(f"{PREFIX}merges[{index}] is {line!r}, not two strings with a space between.")
        if left not in fields.ids or right not in fields.ids or left + right not in fields.ids:
            raise BadInput(f"{PREFIX}merges[{index}] is {line!r}, which names strings that {PREFIX}tokens lacks.")
        pairs.append((left, right))
    return pairs
