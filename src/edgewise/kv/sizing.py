"""How many pages a cache gets: for every sequence at full length, or as many as memory holds beside the weights."""

import math

from edgewise.base import BadInput, OutOfRoom


def page_count(
    name: str, weights: int, memory: int, per_token: int, context: int, sequences: int, page_tokens: int, dtype: str
) -> int:
    """Pages for every sequence at full length, or as many as memory holds beside the weights, at least one sequence's.

    name: the model's, for what is said. weights, memory, per_token: bytes; memory 0: unknown, all pages. Pages take
    memory only as they are used. Raises BadInput, OutOfRoom.
    """
    if page_tokens < 1:
        raise BadInput(f"page_tokens must be a positive multiple of 16 but is {page_tokens}.")
    one = math.ceil(context / page_tokens)
    page_bytes = page_tokens * per_token
    if memory == 0:
        return one * sequences
    room = (memory * 9 // 10 - weights) // page_bytes
    if room < one:
        gib = 1 << 30
        raise OutOfRoom(
            f"{name} needs {weights / gib:.2f} GiB for its weights and "
            f"{one * page_bytes / gib:.2f} GiB for {context} tokens of {dtype} KV cache, but this machine has "
            f"{memory / gib:.2f} GiB, a tenth of which is left to others. "
            "Use a smaller format of the model, a smaller ctx_size, or a ram_budget, under which weights come and go."
        )
    return min(one * sequences, room)


def page_count_within(
    budget: int, per_token: int, context: int, sequences: int, page_tokens: int
) -> int:
    """The same under a memory budget: one sequence's, and more while they take at most a quarter of it."""
    if page_tokens < 1:
        raise BadInput(f"page_tokens must be a positive multiple of 16 but is {page_tokens}.")
    one = math.ceil(context / page_tokens)
    return max(one, min(one * sequences, budget // 4 // (page_tokens * per_token)))
