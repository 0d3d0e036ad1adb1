"""Who owns which page: the bookkeeping of a paged cache, numbers only, no device.

A page holds `page_tokens` tokens of one or more sequences that share a prefix. A sequence may write only into pages
that it holds alone, so a shared tail page is replaced (copied by the caller) before the first write after a fork.
Invariants, tested: free + held = all; a page's count equals the number of tables that list it; only full or read-only
pages are shared between sequences that have written since their fork.
"""

import numpy as np

from edgewise.base import BadInput, OutOfRoom
from edgewise.kernels.api import Ints


class Holding:
    """One sequence's pages: `view` is the page table, `length` the tokens cached, `writable` how far it may write."""

    __slots__ = ("_room", "length", "view", "writable")

    def __init__(self) -> None:
        self._room: Ints = np.empty(8, np.int32)
        self.view: Ints = self._room[:0]
        self.length = 0
        self.writable = 0

    def resize(self, count: int) -> None:
        """Sets the number of pages in the table; new entries are undefined until written."""
        if count > len(self._room):
            grown = np.empty(max(count, 2 * len(self._room)), np.int32)
            grown[: len(self.view)] = self.view
            self._room = grown
        self.view = self._room[:count]


class Pages:
    """A free list and a reference count per page, and one table per sequence."""

    def __init__(self, pages: int, page_tokens: int) -> None:
        if page_tokens < 16 or page_tokens % 16:
            raise BadInput(f"page_tokens must be a positive multiple of 16 but is {page_tokens}.")
        if pages < 1:
            raise BadInput(f"A paged cache needs at least one page but was given {pages}.")
        self.pages = pages
        self.page_tokens = page_tokens
        self.counts = [0] * pages  # how many tables list each page
        self.holdings: dict[int, Holding] = {}
        self._free = list(range(pages - 1, -1, -1))  # a stack: low page numbers first, so few pages are ever touched

    @property
    def free(self) -> int:
        return len(self._free)

    def open(self, seq: int) -> None:
        if seq in self.holdings:
            raise BadInput(f"Sequence {seq} is already open in the cache. Close it first.")
        self.holdings[seq] = Holding()

    def reserve(self, seq: int, length: int) -> tuple[int, int] | None:
        """Makes tokens [cached, length) writable, all or nothing. Returns (from, to) if a shared tail must be copied.

        Raises OutOfRoom, with the numbers and nothing changed, when there are too few free pages.
        """
        held = self.holdings[seq]
        if length <= held.writable:
            return None
        size = self.page_tokens
        have, want = len(held.view), -(-length // size)
        tail = held.length // size  # the first page to be written
        shared = tail < have and self.counts[held.view[tail]] > 1
        need = max(want - have, 0) + shared
        if need > len(self._free):
            raise OutOfRoom(
                f"The KV cache is full: {length} tokens need {need} more pages of {size} tokens, {len(self._free)} of "
                f"{self.pages} are free. Ask for a shorter context, fewer sequences at once, or a smaller KV type."
            )
        copy = None
        if shared:
            old, new = int(held.view[tail]), self._take()
            self.counts[old] -= 1
            held.view[tail] = new
            copy = (old, new)
        if want > have:
            held.resize(want)
            for at in range(have, want):
                held.view[at] = self._take()
        held.writable = len(held.view) * size
        return copy

    def commit(self, seq: int, length: int) -> None:
        """The first `length` tokens are now in the cache."""
        held = self.holdings[seq]
        assert held.length <= length <= held.writable, (seq, held.length, length, held.writable)
        held.length = length

    def rewind(self, seq: int, length: int) -> None:
        """Forgets every token after the first `length`, and every page that then holds nothing."""
        held = self.holdings[seq]
        if not 0 <= length <= held.length:
            raise BadInput(f"Sequence {seq} holds {held.length} tokens and cannot be rewound to {length}.")
        keep = -(-length // self.page_tokens)
        for page in held.view[keep:].tolist():
            self._drop(page)
        held.resize(keep)
        held.length = length
        alone = keep == 0 or length == keep * self.page_tokens or self.counts[held.view[keep - 1]] == 1
        held.writable = keep * self.page_tokens if alone else length

    def fork(self, seq: int, into: int) -> None:
        """`into` starts with everything `seq` has cached; both go on alone. Costs no page until one of them writes."""
        held = self.holdings[seq]
        self.open(into)
        copy = self.holdings[into]
        keep = -(-held.length // self.page_tokens)
        copy.resize(keep)
        copy.view[:] = held.view[:keep]
        for page in copy.view.tolist():
            self.counts[page] += 1
        # Unwritten pages reserved by the parent stay the parent's; neither may write the shared tail as it is.
        copy.length = copy.writable = held.length
        held.writable = held.length

    def close(self, seq: int) -> None:
        for page in self.holdings.pop(seq).view.tolist():
            self._drop(page)

    def _take(self) -> int:
        page = self._free.pop()
        self.counts[page] = 1
        return page

    def _drop(self, page: int) -> None:
        self.counts[page] -= 1
        if self.counts[page] == 0:
            self._free.append(page)
