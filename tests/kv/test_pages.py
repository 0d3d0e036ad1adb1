"""The bookkeeping of pages, driven by random operations against a model that knows only tokens."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edgewise.base import BadInput, OutOfRoom
from edgewise.kv.pages import Pages

PAGES, SIZE = 12, 16


class PagesMachine(RuleBasedStateMachine):
    """`memory` plays the device: what was last written at (page, slot). `truth` is what each sequence should read."""

    seqs = Bundle("seqs")

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages(PAGES, SIZE)
        self.memory: dict[tuple[int, int], int] = {}
        self.truth: dict[int, list[int]] = {}
        self.next_seq = 0
        self.stamp = 0

    @rule(target=seqs)
    def open(self) -> int:
        self.pages.open(self.next_seq)
        self.truth[self.next_seq] = []
        self.next_seq += 1
        return self.next_seq - 1

    @rule(seq=seqs, count=st.integers(0, 40), write=st.integers(0, 40))
    def append(self, seq: int, count: int, write: int) -> None:
        """Reserves `count` more tokens and writes at most as many."""
        held = self.pages.holdings[seq]
        before = (self.pages.free, held.length, held.view.tolist())
        try:
            copy = self.pages.reserve(seq, held.length + count)
        except OutOfRoom:
            assert before == (self.pages.free, held.length, held.view.tolist())
            return
        if copy is not None:
            for slot in range(SIZE):
                if (copy[0], slot) in self.memory:
                    self.memory[copy[1], slot] = self.memory[copy[0], slot]
        for at in range(held.length, held.length + min(write, count)):
            page = int(held.view[at // SIZE])
            assert self.pages.counts[page] == 1, "wrote into a shared page"
            self.stamp += 1
            self.memory[page, at % SIZE] = self.stamp
            self.truth[seq].append(self.stamp)
        self.pages.commit(seq, len(self.truth[seq]))

    @rule(seq=seqs, part=st.floats(0, 1))
    def rewind(self, seq: int, part: float) -> None:
        keep = int(part * len(self.truth[seq]))
        self.pages.rewind(seq, keep)
        del self.truth[seq][keep:]

    @rule(target=seqs, seq=seqs)
    def fork(self, seq: int) -> int:
        self.pages.fork(seq, self.next_seq)
        self.truth[self.next_seq] = list(self.truth[seq])
        self.next_seq += 1
        return self.next_seq - 1

    @rule(seq=consumes(seqs))
    def close(self, seq: int) -> None:
        self.pages.close(seq)
        del self.truth[seq]

    @invariant()
    def books_balance(self) -> None:
        listed = [page for held in self.pages.holdings.values() for page in held.view.tolist()]
        assert self.pages.free + len(set(listed)) == PAGES
        for page in range(PAGES):
            assert self.pages.counts[page] == listed.count(page)
        for held in self.pages.holdings.values():
            assert held.length <= held.writable <= max(held.length, len(held.view) * SIZE)

    @invariant()
    def everyone_reads_their_own(self) -> None:
        for seq, tokens in self.truth.items():
            held = self.pages.holdings[seq]
            assert held.length == len(tokens)
            read = [self.memory[int(held.view[at // SIZE]), at % SIZE] for at in range(held.length)]
            assert read == tokens


PagesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPages = PagesMachine.TestCase


@pytest.mark.parametrize("size", [0, -16, 8, 24])
def test_page_size_must_be_a_multiple_of_16(size: int) -> None:
    with pytest.raises(BadInput, match="multiple of 16"):
        Pages(4, size)


def test_open_twice_is_refused() -> None:
    pages = Pages(4, 16)
    pages.open(1)
    with pytest.raises(BadInput, match="already open"):
        pages.open(1)
