"""How well logits predict a text: sums over windows of it, and the perplexity that follows."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Window = tuple[int, int, int]  # begin, end, first token to count


@dataclass
class Sums:
    """Running totals over scored tokens."""

    tokens: int = 0
    nats: float = 0.0  # of the first model
    other_nats: float = 0.0
    kl: float = 0.0  # sum over tokens of KL(first || second), nats
    agree: int = 0  # tokens where both rank the same id first

    @property
    def perplexity(self) -> float:
        return perplexity(self.nats, self.tokens)


def windows(tokens: int, size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first token to count): token 0 is never counted, every other one exactly once."""
    counted, begin = 1, 0
    while counted < tokens:
        end = min(begin + size, tokens)
        yield begin, end, counted
        counted, begin = end, begin + stride


def framed(tokens: Sequence[int], window: Window, bos: int | None) -> tuple[list[int], int]:
    """The ids to feed for a window, with `bos` before them unless they begin with it, and where counting begins."""
    begin, end, counted = window
    part = list(tokens[begin:end])
    head = [] if bos is None or part[0] == bos else [bos]
    return head + part, len(head) + counted - begin


def tally(chunks: Iterable[Sequence[Any]], ids: Sequence[int], first: int, to: Sums) -> None:
    """Adds ids[first:] to `to`. chunks: for runs of rows in order, one (rows, vocab) array of logits per model."""
    at = 0  # row i predicts ids[i + 1]; the first one that counts is the row just before token `first`
    for logits in chunks:
        rows = range(max(first - 1 - at, 0), min(len(logits[0]), len(ids) - 1 - at))
        if len(rows):
            targets = np.array(ids[at + rows.start + 1 : at + rows.stop + 1])
            _add(to, [one[rows.start : rows.stop] for one in logits], targets)
        at += len(logits[0])


def _add(to: Sums, logits: Sequence[Any], targets: npt.NDArray[np.int64]) -> None:
    """logits: one (tokens, vocab) array per model; targets (tokens,)."""
    rows = np.arange(len(targets))
    logp = [log_softmax(one) for one in logits]
    to.tokens += len(targets)
    to.nats -= float(logp[0][rows, targets].sum())
    if len(logp) == 2:
        to.other_nats -= float(logp[1][rows, targets].sum())
        to.kl += float((np.exp(logp[0]) * (logp[0] - logp[1])).sum())
        to.agree += int((logits[0].argmax(1) == logits[1].argmax(1)).sum())


def log_softmax(logits: Any) -> Doubles:
    """Natural log probabilities in float64, row by row."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def perplexity(nats: float, tokens: int) -> float:
    """exp of the mean; infinite where that is beyond a float."""
    return math.exp(nats / tokens) if nats / tokens < 700 else math.inf
