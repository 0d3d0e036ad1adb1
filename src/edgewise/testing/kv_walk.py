"""A random walk through a paged cache: every operation in any order, everything checked after each of them.

`python -m edgewise.testing.kv_walk --steps 1000000` is the long one (row R24 of the reliability plan). Slots hold
chained hashes, so a page that is lost, mixed up or shared without the same text before it shows at once.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np

from edgewise.base import OutOfRoom, SeqId
from edgewise.kv.api import Chunk
from edgewise.kv.paged import PagedCache
from edgewise.sim.memory import START, follow, slot_cache

SIZE = 16


class Walk:
    """pages: few, so that they are always short. Texts begin alike, so that prefixes are found again."""

    def __init__(self, seed: int = 0, pages: int = 14, cache: PagedCache | None = None) -> None:
        self.cache = cache or slot_cache(pages, SIZE)
        self.pages = self.cache.pages
        self.pool: list[int] = self.cache._pools[0]
        self.numbers = np.random.default_rng(seed)
        self.texts: dict[int, list[int]] = {}  # of the open sequences, as far as they are cached
        self.kept: dict[int, tuple[list[int], list[Chunk]]] = {}  # swapped out
        self.next_seq = 0
        self.done: Counter[str] = Counter()
        self.reused = 0
        blocks = self.numbers.integers(0, 4, (3, SIZE)).tolist()  # the same pages after other texts
        self._stock: list[list[int]] = [
            [token for at in self.numbers.integers(0, 3, 5) for token in blocks[int(at)]] for _ in range(3)
        ]

    def step(self) -> None:
        kinds = ("open", "append", "append", "append", "rewind", "fork", "close", "remember", "swap_out", "swap_in")
        kind = kinds[int(self.numbers.integers(len(kinds)))]
        if kind == "open" or (kind == "swap_in" and self.kept) or self.texts:
            getattr(self, kind)()
            self.done[kind] += 1
            self.check()

    def _pick(self) -> int:
        return int(self.numbers.choice(list(self.texts)))

    def _new(self) -> int:
        self.next_seq += 1
        return self.next_seq

    def _write(self, seq: int, tokens: list[int]) -> None:
        """As a device would: into the slots of the page table."""
        held, text = self.pages.holdings[seq], self.texts[seq]
        for token in tokens:
            at = len(text)
            page = int(held.view[at // SIZE])
            assert at < held.writable, "wrote where nothing was reserved"
            assert self.pages.counts[page] == 1, "wrote into a page that somebody else lists"
            assert page not in self.pages.known, "wrote into a page that can be found"
            before = self._slot(seq, at - 1) if at else START
            self.pool[page * SIZE + at % SIZE] = follow(before, token)
            text.append(token)
        self.pages.commit(seq, len(text))

    def _slot(self, seq: int, at: int) -> int:
        return self.pool[int(self.pages.holdings[seq].view[at // SIZE]) * SIZE + at % SIZE]

    # ── operations ──────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        if len(self.texts) > 8:
            return self.close()
        seq = self._new()
        stock = self._stock[int(self.numbers.integers(3))]
        cut = int(self.numbers.integers(1, len(stock) + 1))
        text = [*stock[:cut], *self.numbers.integers(0, 4, int(self.numbers.integers(0, 20))).tolist()]
        known = self.cache.open(SeqId(seq), text)
        assert known < len(text), "nothing is left to compute"
        self.reused += known > 0
        self.texts[seq] = text[:known]
        self.check()
        return self._extend(seq, text[known:])

    def append(self) -> None:
        self._extend(self._pick(), self.numbers.integers(0, 4, int(self.numbers.integers(1, 24))).tolist())

    def _extend(self, seq: int, tokens: list[int]) -> None:
        before = self.pages.free
        try:
            self.cache.reserve(SeqId(seq), len(self.texts[seq]) + len(tokens))
        except OutOfRoom:
            assert before == self.pages.free
            return
        self._write(seq, tokens[: int(self.numbers.integers(0, len(tokens) + 1))] or tokens)

    def rewind(self) -> None:
        seq = self._pick()
        keep = int(self.numbers.integers(0, len(self.texts[seq]) + 1))
        self.cache.rewind(SeqId(seq), keep)
        del self.texts[seq][keep:]

    def fork(self) -> None:
        if len(self.texts) > 8:
            return self.close()
        seq, into = self._pick(), self._new()
        self.cache.fork(SeqId(seq), SeqId(into))
        self.texts[into] = list(self.texts[seq])
        return None

    def close(self) -> None:
        seq = self._pick()
        if self.numbers.random() < 0.7:
            self.cache.remember(SeqId(seq), self.texts[seq])
        self.cache.close(SeqId(seq))
        del self.texts[seq]

    def remember(self) -> None:
        seq = self._pick()
        self.cache.remember(SeqId(seq), self.texts[seq])

    def swap_out(self) -> None:
        seq = self._pick()
        if len(self.kept) < 4:
            self.kept[seq] = self.texts[seq], list(self.cache.export(SeqId(seq)))
            self.cache.close(SeqId(seq))
            del self.texts[seq]

    def swap_in(self) -> None:
        if not self.kept:
            return
        seq = int(self.numbers.choice(list(self.kept)))
        text, chunks = self.kept[seq]
        self.cache.open(SeqId(seq), ())
        try:
            self.cache.reserve(SeqId(seq), len(text))
        except OutOfRoom:
            self.cache.close(SeqId(seq))
            return
        self.cache.adopt(SeqId(seq), len(text), chunks)
        self.texts[seq] = text
        del self.kept[seq]

    # ── what must hold ──────────────────────────────────────────────────────────────────

    def check(self) -> None:
        pages = self.pages
        listed: Counter[int] = Counter()
        for held in pages.holdings.values():
            table = held.view.tolist()
            assert len(set(table)) == len(table), "a sequence lists a page twice"
            listed.update(table)
        assert pages.free + len(listed) == pages.pages, "pages were lost or doubled"
        assert all(pages.counts[page] == listed[page] for page in range(pages.pages)), "a count is wrong"
        assert not set(pages.idle) & set(listed), "a page in use may be given away"
        assert set(pages.idle) <= set(pages.known), "an idle page cannot be found"
        assert not set(pages._free) & set(pages.known), "a free page can be found"
        assert pages._found == {known.digest: page for page, known in pages.known.items()}, "the index is wrong"
        for seq, text in self.texts.items():
            held = pages.holdings[seq]
            assert held.length == len(text)
            if text:
                # A slot's value holds all before it, so page ends and the last one tell of everything.
                value = START
                table = held.view.tolist()
                for at, token in enumerate(text):
                    value = follow(value, token)
                    if at % 16 in (0, 15) or at == len(text) - 1:
                        found = self.pool[table[at // SIZE] * SIZE + at % SIZE]
                        assert found == value, f"sequence {seq} reads another's token at {at}"


def walk(steps: int, seed: int = 0, cache: PagedCache | None = None) -> Walk:
    """Raises AssertionError at the first thing that is wrong."""
    one = Walk(seed, cache=cache)
    for _ in range(steps):
        one.step()
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin, done, total = time.monotonic(), 0, Counter[str]()
    part = 20_000
    for number in range(-(-options.steps // part)):
        one = walk(min(part, options.steps - done), options.seed + number)
        done += min(part, options.steps - done)
        total += one.done
        if sys.stderr.isatty():
            print(f"\r{done} of {options.steps} steps, {time.monotonic() - begin:.0f} s", end="", file=sys.stderr)
    print(f"{done} steps, 0 violations: {dict(sorted(total.items()))}")


if __name__ == "__main__":
    main()
