"""Down a draft tree, token by token, each node's row edited by the rules with the node's own path as history."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgewise.base import BadInput
from edgewise.decode.api import Accepted, Draft, LogitsRule, SeqView
from edgewise.kernels.api import Floats

# (row, index of its largest value or -1, position, the drafted nodes that may follow) → the token at this position
Choose = Callable[[Floats, int, int, Sequence[int]], int]


def edited(view: SeqView, row: Floats, rules: Sequence[LogitsRule]) -> Floats:
    """row (vocab,) itself where there are no rules, else a copy. Raises BadInput when no token is left."""
    if not rules:
        return row
    row = row.copy()  # the device owns the logits, and log probabilities are taken from them as they are
    for rule in rules:
        row = rule.apply(view, row)
    if row.max() == -np.inf:
        raise BadInput("No token is left: allowed_token_ids, logit_bias and min_tokens together forbid all.")
    return row


def walk(
    view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int], choose: Choose
) -> Accepted:
    """Chooses until a token was not drafted, or ends the text. logits and best as the verifier has them."""
    tokens: list[int] = []
    nodes: list[int] = []
    rows: list[int] = []
    position, node, grown = len(view.tokens), -1, view
    while True:
        at = node + 1
        children = [i for i in range(at, len(draft.tokens)) if draft.parents[i] == node]
        row, likeliest = edited(grown, logits[at], rules), -1 if rules else best[at]
        token = choose(row, likeliest, position + len(tokens), children)
        tokens.append(token)
        rows.append(at)
        node = next((child for child in children if draft.tokens[child] == token), -1)
        if node < 0:
            break
        nodes.append(node)
        if token in view.ends:
            break
        if rules:
            grown = replace(view, tokens=[*view.tokens, *tokens])
    return Accepted(view.seq, tuple(tokens), tuple(nodes), tuple(rows))
