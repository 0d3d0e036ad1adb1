"""Temperature, top-k, top-p, min-p, in this order, then one draw; temperature 0 is greedy (ties: the lowest id).

The rules (penalties, then bias) have edited the row before. Every filter sees the probabilities renormalised by the one
before it and always keeps the likeliest token; of equally likely tokens the lower id stays. The draw inverts the
survivors' cumulative distribution at one uniform number that depends on (seed, position) only: the same request gives
the same tokens alone or in any batch.

Paper:  Holtzman et al., The Curious Case of Neural Text Degeneration (top-p), 2019, arXiv:1904.09751;
        Nguyen et al., Turning Up the Heat: Min-p Sampling, 2024, arXiv:2407.01082
Exact.
Needs:  nothing
Cost:   temperature 0: one pass; else O(vocab) plus a sort of the survivors
Status: kept
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import SamplingParams
from edgewise.kernels.api import Floats

Doubles = npt.NDArray[np.float64]
_MASK64 = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from a counter-based generator: key `seed` (128 bits), counter `position`.

    Philox-4x64-10 (Salmon et al., 2011). The upper 53 bits of its first word.
    """
    key = np.array((seed & _MASK64, seed >> 64 & _MASK64), np.uint64)
    word = np.random.Philox(counter=position, key=key).random_raw()
    return float(int(word) >> 11) * 2.0**-53


def ranked(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` largest, largest first, ties by index. values (n,)."""
    if count < len(values):
        floor = np.partition(values, len(values) - count)[len(values) - count]
        index = np.flatnonzero(values >= floor)  # ascending, so a stable sort keeps ties in order
    else:
        index = np.arange(len(values))
    return index[np.argsort(-values[index], kind="stable")][:count]


def distribution(logits: Floats, params: SamplingParams) -> tuple[npt.NDArray[np.intp], Doubles]:
    """Surviving tokens and their unnormalised probabilities. logits (vocab,), at least one of them finite."""
    vocab = len(logits)
    with np.errstate(over="ignore"):  # a tiny temperature sends the others to -inf, hence to probability 0
        weight = np.exp((logits.astype(np.float64) - float(logits.max())) / params.temperature)  # the likeliest has 1
    tokens = np.arange(vocab)
    if 0 < params.top_k < vocab:
        tokens = ranked(weight, params.top_k)
    if params.top_p < 1:
        target = params.top_p * float(weight[tokens].sum())
        # Sorting costs most and top-p rarely needs more than a few hundred candidates: widen only when it does.
        for count in (256, 4096, vocab) if len(tokens) == vocab else (len(tokens),):
            nucleus = ranked(weight, count) if len(tokens) == vocab else tokens
            reach = np.cumsum(weight[nucleus])
            if reach[-1] >= target:
                break
        tokens = nucleus[: int(np.searchsorted(reach, target)) + 1]
    if params.min_p > 0:
        tokens = tokens[weight[tokens] >= params.min_p]  # relative to the likeliest, which has weight 1
    return tokens, weight[tokens]


class StandardSampler:
    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int) -> int:
        if params.temperature == 0:
            return int(logits.argmax())  # argmax returns the first of equals
        tokens, weight = distribution(logits, params)
        total = np.cumsum(weight)
        at = int(np.searchsorted(total, uniform(seed, position) * total[-1], side="right"))
        return int(tokens[min(at, len(tokens) - 1)])  # the product may round up to the total itself
