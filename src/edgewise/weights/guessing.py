"""How good guesses of the next layer's experts are: recall over a trace of routing, beside guesses that know less."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHUFFLES = 16  # ways of renaming, averaged
Step = Mapping[int, Sequence[int]]  # layer → experts, of one token


@dataclass(frozen=True)
class Recall:
    """Shares of the experts that were wanted among the `most` that were guessed, in layers that anything precedes."""

    most: int
    lookahead: float  # the next router on this layer's state
    shuffled: float  # the same guesses, each layer's experts renamed at random, always alike
    previous: float  # what the token before chose in that layer
    chance: float  # most / experts


def recall(chosen: Sequence[Step], guessed: Sequence[Step], experts: int, most: int, seed: int = 0) -> Recall | None:
    """chosen: whom every token went to. guessed: what a layer said of the next, the likeliest first. None: nothing."""
    names: dict[int, list[list[int]]] = {}
    draw = np.random.default_rng(seed)
    early = renamed = earlier = 0.0
    wanted = before = 0
    for turn, token in enumerate(chosen):
        layers = sorted(token)
        for layer, following in itertools.pairwise(layers):
            guess = list(guessed[turn].get(layer, ()))[:most]
            if not guess:
                continue
            if following not in names:
                names[following] = [draw.permutation(experts).tolist() for _ in range(SHUFFLES)]
            there = set(token[following])
            wanted += min(most, len(there))
            early += len(there & set(guess))
            renamed += sum(len(there & {way[e] for e in guess}) for way in names[following]) / SHUFFLES
            if turn:
                before += min(most, len(there))
                earlier += len(there & set(list(chosen[turn - 1].get(following, ()))[:most]))
    if not wanted:
        return None
    return Recall(most, early / wanted, renamed / wanted, earlier / max(1, before), most / experts)
