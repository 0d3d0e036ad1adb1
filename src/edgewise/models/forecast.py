"""How fast a model will be under a memory budget, from costs that were measured and a rate of hits that is assumed."""

from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Costs:
    """Seconds, of one sequence that writes a token after the other."""

    token_s: float  # a token when all that it wants is here, Python's share included
    bundle_s: float  # of these, computing one bundle
    first_s: float  # until a bundle is here that was read alone
    next_s: float  # until one more is here that was asked for at the same time
    cpu_s: float  # processor time of reading one bundle: checksum, packing, system calls
    threads: int


def expert_tokens_s(costs: Costs, layers: int, chosen: int, hit_rate: float) -> float:
    """Tokens per second of a mixture whose layers each want `chosen` experts of which a share hit_rate is here.

    What is here is computed while the rest is read. Only gate and up products are done meanwhile (two thirds of an
    expert), and reading takes its own processor time from them. Misses are taken to be independent.
    """
    stall = 0.0
    for missing in range(1, chosen + 1):
        odds = comb(chosen, missing) * (1 - hit_rate) ** missing * hit_rate ** (chosen - missing)
        reading = costs.first_s + (missing - 1) * costs.next_s
        hidden = (chosen - missing) * costs.bundle_s * 2 / 3
        stall += odds * max(reading - hidden, missing * costs.cpu_s / costs.threads)
    return 1.0 / (costs.token_s + layers * stall)


def layer_tokens_s(costs: Costs, layers: int, hit_rate: float) -> float:
    """The same of a dense model whose layers pass through a window: reading goes on behind computing."""
    reading = (1 - hit_rate) * layers * costs.next_s
    busy = costs.token_s + (1 - hit_rate) * layers * costs.cpu_s / costs.threads
    return 1.0 / max(busy, reading)
