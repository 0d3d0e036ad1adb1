"""What a residency would have held: a trace of bundles asked for, replayed against any number of slots, without bytes.

An access is what a layer asks for at once (one token's experts there). Reference lines: Belady's optimum, which knows
the future, and uniform-random choices, from which no policy can win anything.
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from edgewise.weights.api import Residency

Access = Sequence[int]


def hit_rate(accesses: Sequence[Access], slots: int, residency: Residency, shares: Sequence[Sequence[float]] = (),
             firsts: Sequence[int] = ()) -> float:  # fmt: skip
    """The share of what was asked for that was here. shares and firsts: what `routed` is told before each access."""
    held: set[int] = set()
    hits = asked = 0
    for turn, access in enumerate(accesses):
        wanted = set(access)
        if shares:
            residency.routed(firsts[turn], shares[turn])
        for key in access:
            asked += 1
            if key in held:
                hits += 1
            else:
                if len(held) >= slots:
                    victim = residency.victim(key, True, _all_but(wanted, held))
                    if victim is None:  # what is wanted at once does not fit: it is read and not kept
                        continue
                    held.discard(victim)
                    residency.left(victim)
                held.add(key)
                residency.came(key)
            residency.used(key)
        if not residency.keeps:
            for key in access:
                if key in held:
                    held.discard(key)
                    residency.left(key)
    return hits / asked if asked else 0.0


def _all_but(wanted: set[int], held: set[int]) -> Callable[[int], bool]:
    return lambda key: key in held and key not in wanted


def belady(accesses: Sequence[Access], slots: int) -> float:
    """The best that any policy can do: whoever is wanted again last leaves (or does not stay)."""
    following: dict[int, list[int]] = {}
    for turn in range(len(accesses) - 1, -1, -1):
        for key in accesses[turn]:
            following.setdefault(key, []).append(turn)  # ascending from the end
    never = len(accesses)
    due: dict[int, int] = {}
    heap: list[tuple[int, int]] = []  # (-next turn, key), some out of date
    hits = asked = 0
    for access in accesses:
        for key in access:
            following[key].pop()
        for key in access:
            asked += 1
            upcoming = following[key][-1] if following[key] else never
            if key in due:
                hits += 1
            elif len(due) >= slots:
                while heap and due.get(heap[0][1]) != -heap[0][0]:
                    heapq.heappop(heap)
                if not heap or -heap[0][0] <= upcoming:
                    continue  # everybody here is wanted sooner
                del due[heapq.heappop(heap)[1]]
            due[key] = upcoming
            heapq.heappush(heap, (-upcoming, key))
    return hits / asked if asked else 0.0


def uniform(accesses: Sequence[Access], experts: int, seed: int = 0) -> list[list[int]]:
    """The same layers asking for as many experts, drawn at random: key // experts is a layer."""
    draw = np.random.default_rng(seed)
    made = []
    for access in accesses:
        base = access[0] // experts * experts
        made.append((base + draw.choice(experts, len(access), replace=False)).tolist())
    return made


def entropy(accesses: Sequence[Access], experts: int) -> float:
    """Of a layer's choices, in bits, averaged over layers; log2(experts) when all experts are equally likely."""
    counts: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for access in accesses:
        of = counts.setdefault(access[0] // experts, np.zeros(experts))
        for key in access:
            of[key % experts] += 1
    bits = []
    for of in counts.values():
        p = of[of > 0] / of.sum()
        bits.append(float(-(p * np.log2(p)).sum()))
    return float(np.mean(bits)) if bits else 0.0
