"""Plain generation with the torch model, to look at what was learnt. The engine does it properly."""

from collections.abc import Sequence

import torch

from edgewise.train.model import Llama


@torch.no_grad()
def complete(
    model: Llama, ids: Sequence[int], tokens: int, *, temperature: float = 0.0, seed: int = 0, stop: int | None = None
) -> list[int]:
    """New ids after `ids` (at least one). Temperature 0 is greedy. Recomputes the whole context each step."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    text = list(ids)
    for _ in range(tokens):
        logits = model(torch.tensor([text[-model.shape.context :]], device=device))[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if token == stop:
            break
        text.append(token)
    return text[len(ids) :]
