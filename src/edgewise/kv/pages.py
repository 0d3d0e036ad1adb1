"""Who owns which page: the bookkeeping of a paged cache, numbers only, no device.

A page holds `page_tokens` tokens of one or more sequences that share a prefix. A sequence may write only into pages
that it holds alone, so a shared tail page is replaced (copied by the caller) before the first write after a fork.
A full page whose tokens are told (`remember`) can be found again: by a cryptographic hash of its tokens and its
parent's hash, and then by comparing the tokens themselves. When its last owner goes it stays idle, and counts as free:
it is given away last, least recently used first, and then forgotten.
Invariants, tested: free + held = all; a page's count equals the number of tables that list it; only full or read-only
pages are shared between sequences that have written since their fork; nobody writes into a page that can be found.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from edgewise.base import BadInput, OutOfRoom
from edgewise.kernels.api import Ints


class Holding:
    """One sequence's pages: `view` is the page table, `length` the tokens cached, `writable` how far it may write."""

    __slots__ = ("_room", "chain", "length", "view", "writable")

    def __init__(self) -> None:
        self._room: Ints = np.empty(8, np.int32)
        self.view: Ints = self._room[:0]
        self.length = 0
        self.writable = 0
        self.chain: list[bytes] = []  # hashes of its first full pages, as far as they were told

    def resize(self, count: int) -> None:
        """Sets the number of pages in the table; new entries are undefined until written."""
        if count > len(self._room):
            grown = np.empty(max(count, 2 * len(self._room)), np.int32)
            grown[: len(self.view)] = self.view
            self._room = grown
        self.view = self._room[:count]


class Known(NamedTuple):
    """What a page that can be found holds."""

    digest: bytes
    parent: bytes
    tokens: bytes  # int32


class Pages:
    """A free list and a reference count per page, and one table per sequence. reuse: full pages may be found again."""

    def __init__(self, pages: int, page_tokens: int, reuse: bool = True) -> None:
        if page_tokens < 16 or page_tokens % 16:
            raise BadInput(f"page_tokens must be a positive multiple of 16 but is {page_tokens}.")
        if pages < 1:
            raise BadInput(f"A paged cache needs at least one page but was given {pages}.")
        self.pages = pages
        self.page_tokens = page_tokens
        self.touched = 0  # pages that were ever given away: memory that was really taken
        self.counts = [0] * pages  # how many tables list each page
        self.holdings: dict[int, Holding] = {}
        self.reuse = reuse
        self.known: dict[int, Known] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()  # known pages that no table lists, least recently used first
        self.fresh: dict[int, None] | None = None  # where somebody keeps them: known pages that were not looked at yet
        self._found: dict[bytes, int] = {}  # digest → page
        self._free = list(range(pages - 1, -1, -1))  # a stack: low page numbers first, so few pages are ever touched

    @property
    def free(self) -> int:
        return len(self._free) + len(self.idle)

    def open(self, seq: int, tokens: Sequence[int] = ()) -> int:
        """A new sequence. Returns how many of the tokens are cached already: whole pages, never all of them, because
        the last token must be computed for its logits."""
        if seq in self.holdings:
            raise BadInput(f"Sequence {seq} is already open in the cache. Close it first.")
        held = self.holdings[seq] = Holding()
        if not self._found or len(tokens) <= self.page_tokens:
            return 0
        pages: list[int] = []
        for link in self.links(tokens):
            page = self._found.get(link.digest)
            if page is None or self.known[page] != link:
                break
            pages.append(page)
            held.chain.append(link.digest)
        held.resize(len(pages))
        held.view[:] = pages
        for page in pages:
            self.counts[page] += 1
            self.idle.pop(page, None)
        held.length = held.writable = len(pages) * self.page_tokens
        return held.length

    def remember(self, seq: int, tokens: Sequence[int]) -> None:
        """tokens: the sequence's, at least those that are cached. Its full pages can be found from now on."""
        held = self.holdings[seq]
        full = min(held.length, len(tokens)) // self.page_tokens
        if not self.reuse or full <= len(held.chain):
            return
        first, width = len(held.chain), 4 * self.page_tokens
        raw = array("i", tokens[first * self.page_tokens : full * self.page_tokens]).tobytes()
        parent = held.chain[-1] if held.chain else b""
        for at, page in enumerate(held.view[first:full].tolist()):
            part = raw[at * width : (at + 1) * width]
            digest = self.digest(parent, part)
            if digest not in self._found and page not in self.known:
                self._found[digest] = page
                self.known[page] = Known(digest, parent, part)
                if self.fresh is not None:
                    self.fresh[page] = None
            held.chain.append(digest)
            parent = digest

    def links(self, tokens: Sequence[int], chain: Sequence[bytes] = ()) -> Iterator[Known]:
        """What its full pages hold, without the last token and those that `chain` tells of already."""
        raw, width, parent = array("i", tokens).tobytes(), 4 * self.page_tokens, chain[-1] if chain else b""
        for at in range(len(chain) * width, (len(tokens) - 1) // self.page_tokens * width, width):
            part = raw[at : at + width]
            digest = self.digest(parent, part)
            yield Known(digest, parent, part)
            parent = digest

    @staticmethod
    def digest(parent: bytes, tokens: bytes) -> bytes:
        return blake2b(parent + tokens, digest_size=32).digest()

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
        if need > self.free:
            raise OutOfRoom(
                f"The KV cache is full: {length} tokens need {need} more pages of {size} tokens, {self.free} of "
                f"{self.pages} are free. Ask for a shorter context, fewer sequences at once, or a smaller KV type."
            )
        copy = None
        if shared:
            old, new = int(held.view[tail]), self._take()
            self.counts[old] -= 1
            held.view[tail] = new
            copy = (old, new)
        elif tail < have:
            self._forget(int(held.view[tail]))  # it was rewound into, and will hold something else
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
        for page in reversed(held.view[keep:].tolist()):
            self._drop(page)
        held.resize(keep)
        held.length = length
        del held.chain[length // self.page_tokens :]
        tail = int(held.view[keep - 1]) if length % self.page_tokens else -1
        alone = tail < 0 or (self.counts[tail] == 1 and tail not in self.known)
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
        copy.chain = held.chain[:]
        held.writable = held.length

    def become(self, seq: int, other: int) -> None:
        """`seq` gives up what it holds and goes on with what `other` holds, which is gone."""
        held = self.holdings.pop(other)
        self.close(seq)
        self.holdings[seq] = held

    def close(self, seq: int) -> None:
        # The tail first: of a chain, that is the part to be given away before the rest.
        for page in reversed(self.holdings.pop(seq).view.tolist()):
            self._drop(page)

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
            self.touched = max(self.touched, page + 1)
        else:
            page = next(iter(self.idle))
            del self.idle[page]
            self._forget(page)
        self.counts[page] = 1
        return page

    def _drop(self, page: int) -> None:
        self.counts[page] -= 1
        if self.counts[page] == 0:
            if page in self.known:
                self.idle[page] = None
            else:
                self._free.append(page)

    def _forget(self, page: int) -> None:
        known = self.known.pop(page, None)
        if known is not None:
            del self._found[known.digest]
            if self.fresh is not None:
                self.fresh.pop(page, None)
