"""Log probabilities of the model itself: log-softmax of the raw logits, before any rule, filter or temperature."""

import numpy as np

from edgewise.base import TokenLogprob
from edgewise.decode.ranking import ranked
from edgewise.kernels.api import Floats


def token_logprobs(row: Floats, token: int, alternatives: int) -> tuple[TokenLogprob, ...]:
    """The chosen token first, then the `alternatives` likeliest, largest first, ties by id. row (vocab,)."""
    wide = row.astype(np.float64)
    top = float(wide.max())
    norm = top + float(np.log(np.exp(wide - top).sum()))
    chosen = TokenLogprob(token, float(wide[token]) - norm)
    if alternatives == 0:
        return (chosen,)
    return (chosen, *(TokenLogprob(int(t), float(wide[t]) - norm) for t in ranked(row, alternatives)))
