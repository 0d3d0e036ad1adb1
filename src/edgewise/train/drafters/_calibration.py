"""How often guesses are right on held-out text: by place and rank, and by how sure whoever guessed was of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.decode.choices import RANKS, SURENESS, sure_class
from edgewise.decode.drafting_weights import MEASURED
from edgewise.kernels.api import Floats

PRIOR = 4.0  # guesses that a rank's chance in all is worth


@dataclass(frozen=True)
class Calibration:
    """accuracy (places, ranks). chances (places, ranks, classes of sureness): where all places before were guessed."""

    accuracy: Tensor
    chances: Tensor

    def tensors(self) -> dict[str, Floats]:
        return dict(zip(MEASURED, (self.accuracy.numpy(), self.chances.numpy()), strict=True))


class Counts:
    def __init__(self, places: int) -> None:
        self.count = 0
        self.hits = torch.zeros(places, RANKS)
        self.known = torch.zeros(2, places, RANKS, SURENESS)  # hits and guesses, where the places before were guessed

    def saw(self, logits: Sequence[Tensor], targets: Tensor) -> None:
        """logits of each place (n, vocab); targets (n, places): what came."""
        alive = torch.ones(len(targets))
        for place, said in enumerate(logits):
            best = said.float().softmax(-1).topk(RANKS, -1)
            hits = (best.indices == targets[:, place : place + 1]).float().cpu()
            self.hits[place] += hits.sum(0)
            classes = torch.from_numpy(sure_class(best.values.cpu().numpy()))
            for rank in range(RANKS):
                for at, weight in enumerate((hits[:, rank] * alive, alive)):
                    self.known[at, place, rank].index_add_(0, classes[:, rank], weight)
            alive = alive * hits.sum(1)
        self.count += len(targets)

    def calibration(self) -> Calibration:
        accuracy = self.hits / max(1, self.count)
        hits, guesses = self.known
        before = (hits.sum(-1) + PRIOR * accuracy) / (guesses.sum(-1) + PRIOR)
        return Calibration(accuracy, (hits + PRIOR * before[..., None]) / (guesses + PRIOR))
