"""What is wrong with a request, said before any work is done."""

import math
from collections.abc import Iterable

from edgewise.base import BadInput, OutOfRoom, Request
from edgewise.decode.grammars import Grammars


def _in_vocabulary(name: str, tokens: Iterable[int], vocab: int) -> None:
    for token in tokens:
        if not 0 <= token < vocab:
            raise BadInput(f"{name} holds token id {token}, but the model's vocabulary has {vocab} (0 to {vocab - 1}).")


def check_request(
    request: Request, vocab: int, context: int, capacity: int, grammars: Grammars | None = None
) -> None:
    """vocab, context: the model's. capacity: tokens the whole KV cache holds. grammars: None: it has no words."""
    tokens, params = request.tokens, request.params
    if not tokens:
        raise BadInput("The prompt has no tokens. Give at least one.")
    if len(tokens) > context:
        raise BadInput(
            f"The prompt has {len(tokens)} tokens but the context holds {context}. "
            "Shorten the prompt or raise ctx_size."
        )
    if len(tokens) > capacity:
        raise OutOfRoom(
            f"The prompt has {len(tokens)} tokens but the KV cache holds {capacity} in all. "
            "Shorten it, or give the cache more room (a smaller KV type, more memory)."
        )
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab:
        _in_vocabulary("The prompt", (low, high), vocab)
    _in_vocabulary("logit_bias", map(int, params.logit_bias), vocab)
    for token, bias in params.logit_bias.items():
        if math.isnan(bias) or bias == math.inf:
            raise BadInput(f"logit_bias of token {token} is {bias}; it must be a number, or -inf to forbid the token.")
    if params.allowed_token_ids is not None:
        if not params.allowed_token_ids:
            raise BadInput("allowed_token_ids is empty: no token could be chosen. Leave it out to allow all.")
        _in_vocabulary("allowed_token_ids", params.allowed_token_ids, vocab)
    if params.structured_outputs is not None:
        if grammars is None:
            raise BadInput("This model carries no tokenizer, so structured_outputs cannot be fulfilled.")
        grammars.matcher(params.structured_outputs)
    extra = request.extra
    if not isinstance(extra.get("priority", 0), int):
        raise BadInput(f"priority is {extra['priority']!r} but must be an integer; lower goes first.")
    if not isinstance(extra.get("key", ""), str):
        raise BadInput(f"key is {extra['key']!r} but must be a text: whose request it is.")
    timeout = extra.get("timeout_s")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise BadInput(f"timeout_s is {timeout!r} but must be a number of seconds above 0.")
