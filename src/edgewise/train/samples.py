"""Plain generation with the torch model, to look at what was learnt. The engine does it properly."""

from collections.abc import Collection, Sequence

import torch

from edgewise.train.model import Past, Transformer


@torch.no_grad()
def complete(
    model: Transformer,
    ids: Sequence[int],
    tokens: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Collection[int] = (),
) -> list[int]:
    """At most `tokens` new ids after `ids` (at least one), as far as the context reaches. Temperature 0 is greedy."""
    device, threads = next(model.parameters()).device, torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # a token's products are too small to share, and threads that wait take others' time
    try:
        return _complete(model, ids, tokens, temperature, seed, stop, device)
    finally:
        torch.set_num_threads(threads)


def _complete(
    model: Transformer,
    ids: Sequence[int],
    tokens: int,
    temperature: float,
    seed: int,
    stop: Collection[int],
    device: torch.device,
) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    past = Past(model.shape.layers)
    fed = list(ids)[-(model.shape.context - 1) :]
    room = min(tokens, model.shape.context - len(fed))
    out: list[int] = []
    while len(out) < room:
        logits = model(torch.tensor([fed], device=device), past)[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if token in stop:
            break
        out.append(token)
        fed = [token]
    return out
