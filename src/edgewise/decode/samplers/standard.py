"""Temperature, top-k, top-p, min-p, in this order, then one draw; temperature 0 is greedy (ties: the lowest id).

The rules (penalties, then bias) have edited the row before. Every filter sees the probabilities renormalised by the one
before it and always keeps the likeliest token; of equally likely tokens the lower id stays. The draw inverts the
survivors' cumulative distribution at one uniform number that depends on (seed, position) only: the same request gives
the same tokens alone or in any batch.

Paper:  Holtzman et al., The Curious Case of Neural Text Degeneration (top-p), 2019, arXiv:1904.09751;
        Nguyen et al., Turning Up the Heat: Min-p Sampling, 2024, arXiv:2407.01082
Exact.
Needs:  nothing
Cost:   temperature 0: at most one pass; else O(vocab) plus a sort of the survivors
Status: kept
"""

import numpy as np
import numpy.typing as npt

from edgewise.base import SamplingParams
from edgewise.decode.ranking import ranked
from edgewise.kernels.api import Floats

Doubles = npt.NDArray[np.float64]
_MASK64 = (1 << 64) - 1


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) from a counter-based generator: key `seed` (128 bits), counter `position` and `stream`.

    Philox-4x64-10 (Salmon et al., 2011). The upper 53 bits of its first word.
    """
    key = np.array((seed & _MASK64, seed >> 64 & _MASK64), np.uint64)
    word = np.random.Philox(counter=position + (stream << 64), key=key).random_raw()
    return float(int(word) >> 11) * 2.0**-53


def distribution(logits: Floats, params: SamplingParams) -> tuple[npt.NDArray[np.intp], Doubles]:
    """Surviving tokens and their unnormalised probabilities. logits (vocab,), at least one of them finite."""
    vocab = len(logits)
    some = 0 < params.top_k < vocab
    tokens = ranked(logits, params.top_k) if some else np.arange(vocab)
    with np.errstate(over="ignore"):  # a tiny temperature sends the others to -inf, hence to probability 0
        scaled = ((logits[tokens] if some else logits).astype(np.float64) - float(logits.max())) / params.temperature
        weight = np.exp(scaled)  # the likeliest has 1
    if params.top_p < 1:
        target = params.top_p * float(weight.sum())
        # Sorting costs most and top-p rarely needs more than a few hundred candidates: widen only when it does.
        for count in (256, 4096, vocab):
            nucleus = np.arange(len(tokens)) if some else ranked(logits, count)
            reach = np.cumsum(weight[nucleus])
            if reach[-1] >= target:
                break
        nucleus = nucleus[: int(np.searchsorted(reach, target)) + 1]
        tokens, weight = tokens[nucleus], weight[nucleus]
    if params.min_p > 0:
        kept = weight >= params.min_p  # relative to the likeliest, which has weight 1
        tokens, weight = tokens[kept], weight[kept]
    return tokens, weight


def draw(weight: Doubles, chance: float) -> int:
    """The index at which the cumulative sum passes `chance` of the total, 0 ≤ chance < 1."""
    # In two levels: one long cumulative sum would cost more than everything else.
    sums = np.add.reduceat(weight, np.arange(0, len(weight), 256))
    total = np.cumsum(sums)
    goal = chance * float(total[-1])
    block = min(int(np.searchsorted(total, goal, side="right")), len(total) - 1)
    part = np.cumsum(weight[block * 256 : block * 256 + 256])
    before = float(total[block - 1]) if block else 0.0
    at = int(np.searchsorted(part, goal - before, side="right"))
    if at < len(part):
        return block * 256 + at
    return block * 256 + int(np.flatnonzero(np.diff(part, prepend=0.0))[-1])  # rounding pushed it over the end


class StandardSampler:
    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int, best: int = -1) -> int:
        if params.temperature == 0:
            return best if best >= 0 else int(logits.argmax())  # argmax returns the first of equals
        tokens, weight = distribution(logits, params)
        return int(tokens[draw(weight, uniform(seed, position))])
