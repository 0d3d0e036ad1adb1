"""SentencePiece BPE with byte fallback rebuilt from a GGUF file: the scores become an order of merges.

Paper: https://arxiv.org/abs/1808.06226 (SentencePiece).
Exact. Equals merging the best-scored pair first, for vocabularies as training makes them (parts before wholes).
Needs: tokenizer.ggml.tokens, scores.
Cost: about 0.3 s for 32,000 tokens, 2 s for 256,000.
Status: kept.
"""

import numpy as np
import tokenizers
from tokenizers import models, normalizers

from edgewise.base import BadInput
from edgewise.text.gguf import BYTE, NORMAL, PREFIX, Fields
from edgewise.text.tokenizer import Parts, RustTokenizer, added_tokens
from edgewise.weights.api import Header

_MAX_CHARS = 256  # the work grows with the square
_MARK = "\u2581"  # stands for a space


class LlamaTokenizer(RustTokenizer):
    """Kind `llama`."""

    def __init__(self, header: Header) -> None:
        fields = Fields(header)
        bos, eos = fields.default_id("bos_token_id", 1), fields.default_id("eos_token_id", 2)
        unknown = fields.default_id("unknown_token_id", 0)
        prefix = fields.flag("add_space_prefix", True)
        model = models.BPE(
            vocab=fields.ids, merges=_merges(fields), byte_fallback=True, fuse_unk=True,
            unk_token=None if unknown is None else fields.tokens[unknown],
        )  # fmt: skip
        backend = tokenizers.Tokenizer(model)
        space = normalizers.Replace(" ", _MARK)
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_MARK), space]) if prefix else space
        keyed = [fields.token_id(f"{name}_token_id") for name in ("eot", "eom")]
        # Phi-3's turn markers swallow the line break that its template writes after them; the file has no field for it.
        keeps = frozenset({"<unk>", "<s>", "<|endoftext|>"}) if header.architecture == "phi3" else None
        control = fields.control([bos, eos, unknown, *keyed], keeps)
        user = fields.user()
        backend.add_tokens(added_tokens(user, special=False))
        backend.add_special_tokens(added_tokens(control, special=True))
        steps = [
            {"type": "Replace", "pattern": {"String": _MARK}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]  # fmt: skip
        if prefix:
            steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        super().__init__(
            Parts(
                backend=backend, vocab=len(fields.tokens), bos=bos, eos=fields.ends(eos),
                special=frozenset(token.id for token in control), control=tuple(control), matched=tuple(user),
                add_bos=fields.flag("add_bos_token", True), decoder={"type": "Sequence", "decoders": steps},
                piece=fields.piece,
            )
        )  # fmt: skip


def _merges(fields: Fields) -> list[tuple[str, str]]:
    """Every way to make a normal token from two, best score first; ways to make one token in order of their parts."""
    scores = fields.numbers("scores", "f", "floats")
    if scores is None:
        raise BadInput(f"{fields.name}: {PREFIX}scores is missing, so the vocabulary cannot be used.")
    if not np.isfinite(scores).all():
        raise BadInput(f"{PREFIX}scores holds a value that is not finite.")
    longest = max(range(len(fields.tokens)), key=lambda index: len(fields.tokens[index]))
    if len(fields.tokens[longest]) > _MAX_CHARS:
        size = len(fields.tokens[longest])
        raise BadInput(f"{PREFIX}tokens[{longest}] has {size} characters; at most {_MAX_CHARS} are believable.")
    score = scores.tolist()
    normal = {fields.tokens[i]: i for i in fields.of_type(NORMAL) if not _is_byte(fields, i)}
    pairs: list[tuple[str, str]] = []
    for token in sorted(normal, key=lambda text: (-score[normal[text]], normal[text])):
        ways = [
            (normal[token[:cut]], normal[token[cut:]], cut)
            for cut in range(1, len(token))
            if token[:cut] in normal and token[cut:] in normal
        ]
        ways.sort()
        pairs += [(token[:cut], token[cut:]) for _, _, cut in ways]
    return pairs


def _is_byte(fields: Fields, token: int) -> bool:
    return bool(fields.types[token] == BYTE) or (
        fields.get("token_type") is None and len(fields.tokens[token]) == 6 and fields.tokens[token].startswith("<0x")
    )
