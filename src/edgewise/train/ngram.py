"""A 5-gram model over tokens as the plainest opponent: counts and Witten-Bell smoothing, nothing learnt.

p(w | h) = (count(h w) + kinds(h) p(w | shorter h)) / (count(h) + kinds(h)); below one word everything is alike.
Source: Witten and Bell 1991, https://doi.org/10.1109/18.87000; Chen and Goodman 1998.
"""

import math

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint16]
ORDER = 5


def _keys(tokens: Tokens, length: int, vocab: int) -> npt.NDArray[np.uint64]:
    """One number for each run of `length` tokens, by its first position."""
    count = max(0, len(tokens) - length + 1)
    keys = np.zeros(count, np.uint64)
    for offset in range(length):
        keys = keys * np.uint64(vocab) + tokens[offset : offset + count].astype(np.uint64)
    return keys


def _found(
    keys: npt.NDArray[np.uint64], table: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    at = np.minimum(np.searchsorted(table, keys), max(0, len(table) - 1))
    hit = table[at] == keys if len(table) else np.zeros(len(keys), bool)
    return np.where(hit, counts[at], 0).astype(np.float64)


def ngram_nats(
    train: Tokens, text: Tokens, vocab: int, order: int = ORDER, asked: npt.NDArray[np.bool_] | None = None
) -> float:
    """Mean cost in nats of a token of `text`, but for the first order - 1, by counts from `train`.

    asked: a flag a token, to leave out of the mean those that have none.
    """
    if vocab**order >= 2**64:
        order = int(64 * math.log(2) / math.log(vocab) - 1e-9)
    if len(text) < order:
        return math.log(vocab)
    p = np.full(len(text) - order + 1, 1 / vocab)
    for length in range(1, order + 1):
        wanted = _keys(text, length, vocab)[order - length :]
        table, counts = np.unique(_keys(train, length, vocab), return_counts=True)
        # A history's count and kinds, from the table of its continuations: one row per kind of next token.
        histories, first, kinds = np.unique(table // np.uint64(vocab), return_index=True, return_counts=True)
        seen = np.add.reduceat(counts, first) if len(first) else counts
        history = wanted // np.uint64(vocab)
        total, different = _found(history, histories, seen), _found(history, histories, kinds)
        p = np.where(total > 0, (_found(wanted, table, counts) + different * p) / np.maximum(total + different, 1), p)
    if asked is not None:
        p = p[asked[order - 1 :]]
    return float(-np.log(p).mean())
