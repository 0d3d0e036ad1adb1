"""SentencePiece BPE with byte fallback rebuilt from a GGUF file: the scores become an order of merges.

Paper: https://arxiv.org/abs/1808.06226 (SentencePiece).
Exact. Equals merging the best-scored pair first, for vocabularies as training makes them (parts before wholes).
Needs: tokenizer.ggml.tokens, scores.
Cost: milliseconds; 0.3 s for 32,000 tokens, 2 s for 256,000, when long or many texts are encoded (text/excerpts.py).
Status: kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, normalizers

from edgewise.base import BadInput
from edgewise.kernels.parsing import Strings
from edgewise.kernels.pieces import Pieces
from edgewise.text.excerpts import Excerpts
from edgewise.text.gguf import BYTE, NORMAL, PREFIX, Fields
from edgewise.text.tokenizer import Parts, RustTokenizer, added_tokens
from edgewise.weights.api import Header

_MAX_CHARS = 256  # the work grows with the square
_MARK = "\u2581"  # stands for a space
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


class LlamaTokenizer(RustTokenizer):
    """Kind `llama`."""

    def __init__(self, header: Header) -> None:
        fields = Fields(header)
        bos, eos = fields.default_id("bos_token_id", 1), fields.default_id("eos_token_id", 2)
        unknown = fields.default_id("unknown_token_id", 0)
        prefix = fields.flag("add_space_prefix", True)
        space = normalizers.Replace(" ", _MARK)
        normalizer = normalizers.Sequence([normalizers.Prepend(_MARK), space]) if prefix else space
        keyed = [fields.token_id(f"{name}_token_id") for name in ("eot", "eom")]
        # Phi-3's turn markers swallow the line break that its template writes after them; the file has no field for it.
        keeps = frozenset({"<unk>", "<s>", "<|endoftext|>"}) if header.architecture == "phi3" else None
        control = fields.control([bos, eos, unknown, *keyed], keeps)
        user = fields.user()
        score = _scores(fields)

        def make(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
            model = models.BPE(
                vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True,
                unk_token=None if unknown is None else fields.tokens[unknown],
            )  # fmt: skip
            backend = tokenizers.Tokenizer(model)
            backend.normalizer = normalizer
            backend.add_tokens(added_tokens(user, special=False))
            backend.add_special_tokens(added_tokens(control, special=True))
            return backend

        def excerpt(text: str) -> tokenizers.Tokenizer | None:
            """A tokenizer that is right for this text: BPE asks only for strings that the text contains, or bytes."""
            pieces = fields.ids
            if not isinstance(pieces, Pieces) or (prefix and any(token.text in text for token in user)):
                return None  # the piece after an added token gets a mark of its own
            form = (_MARK + text.replace(" ", _MARK)).encode("utf-8")
            used = set(pieces.within(form).tolist()) | {token.id for token in (*control, *user)}
            used |= {pieces[name] for name in _BYTES if name in pieces} | ({unknown} if unknown is not None else set())
            ids = sorted(used)
            return make({text: pieces[text] for i in ids if (text := fields.tokens[i])}, _merges(fields, score, ids))

        def whole() -> tokenizers.Tokenizer:
            return make(fields.all_ids(), _merges(fields, score, range(len(fields.tokens))))

        backend = Excerpts(whole, excerpt) if isinstance(fields.ids, Pieces) else Excerpts.of(whole())
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
                piece=fields.piece, pieces=fields.tokens,
            )
        )  # fmt: skip


def _scores(fields: Fields) -> npt.NDArray[Any]:
    """One a token. Raises BadInput where merges cannot be made of them."""
    scores = fields.numbers("scores", "f", "floats")
    if scores is None:
        raise BadInput(f"{fields.name}: {PREFIX}scores is missing, so the vocabulary cannot be used.")
    if not np.isfinite(scores).all():
        raise BadInput(f"{PREFIX}scores holds a value that is not finite.")
    suspects: Sequence[int] = range(len(fields.tokens))
    if isinstance(fields.tokens, Strings):  # a string has no more characters than bytes
        _, ends = fields.tokens.stored
        suspects = np.flatnonzero(np.diff(ends, prepend=0) > _MAX_CHARS).tolist()
    longest = max(suspects, key=lambda index: len(fields.tokens[index]), default=0)
    if len(fields.tokens[longest]) > _MAX_CHARS:
        size = len(fields.tokens[longest])
        raise BadInput(f"{PREFIX}tokens[{longest}] has {size} characters; at most {_MAX_CHARS} are believable.")
    return scores


def _merges(fields: Fields, scores: npt.NDArray[Any], ids: Sequence[int]) -> list[tuple[str, str]]:
    """Every way to make a normal token of `ids` (ascending) from two, best score first; ways to make one token in order
    of their parts."""
    normal = {
        text: i for i in ids
        if fields.types[i] == NORMAL and (text := fields.tokens[i]) and not _is_byte(fields, i)
    }  # fmt: skip
    score = {i: float(scores[i]) for i in normal.values()}
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
