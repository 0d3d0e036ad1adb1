"""Bugs that a page allocator may have, each a small change of the true one: a walk must find them all (row R24)."""

from collections.abc import Sequence

from edgewise.kv.paged import PagedCache
from edgewise.kv.pages import Pages
from edgewise.sim.memory import slot_cache


def cache_with(kind: type[Pages], pages: int = 14) -> PagedCache:
    cache: PagedCache = slot_cache(pages)
    cache.pages = kind(pages, 16)
    return cache


class ForkForgetsCounts(Pages):
    def fork(self, seq: int, into: int) -> None:
        super().fork(seq, into)
        for page in self.holdings[into].view.tolist():
            self.counts[page] -= 1


class CloseLeaksTheTail(Pages):
    def close(self, seq: int) -> None:
        held = self.holdings[seq]
        held.resize(max(0, len(held.view) - 1))
        super().close(seq)


class RewindKeepsPages(Pages):
    def rewind(self, seq: int, length: int) -> None:
        held = self.holdings[seq]
        held.length = length
        held.writable = len(held.view) * self.page_tokens


class SharedTailIsNotCopied(Pages):
    def reserve(self, seq: int, length: int) -> tuple[int, int] | None:
        super().reserve(seq, length)
        return None


class TailIsSharedForWriting(Pages):
    def fork(self, seq: int, into: int) -> None:
        writable = self.holdings[seq].writable
        super().fork(seq, into)
        self.holdings[seq].writable = writable


class EvictedPagesCanBeFound(Pages):
    def _take(self) -> int:
        if self._free:
            return super()._take()
        page, _ = self.idle.popitem(last=False)
        self.counts[page] = 1
        return page


class RewoundPagesCanBeFound(Pages):
    def _forget(self, page: int) -> None:
        if self.counts[page] == 0:
            super()._forget(page)


class FreedTwice(Pages):
    def _drop(self, page: int) -> None:
        super()._drop(page)
        if self.counts[page] == 0 and page % 5 == 0 and page not in self.known:
            self._free.append(page)


class FoundPagesStayIdle(Pages):
    def open(self, seq: int, tokens: Sequence[int] = ()) -> int:
        idle = dict(self.idle)
        known = super().open(seq, tokens)
        self.idle.update({page: None for page in self.holdings[seq].view.tolist() if page in idle})
        return known


class HalfPagesAreRemembered(Pages):
    def remember(self, seq: int, tokens: Sequence[int]) -> None:
        held = self.holdings[seq]
        length = held.length
        held.length = min(len(held.view) * self.page_tokens, length + 8)
        super().remember(seq, [*tokens, *[0] * 16])
        held.length = length


class ParentsDoNotCount(Pages):
    """The same sixteen tokens after another text."""

    @staticmethod
    def digest(parent: bytes, tokens: bytes) -> bytes:
        return Pages.digest(b"", tokens)

    def open(self, seq: int, tokens: Sequence[int] = ()) -> int:
        for page, known in list(self.known.items()):
            self.known[page] = known._replace(parent=AnyBytes())
        return super().open(seq, tokens)


class HashAloneDecides(Pages):
    """A short hash, and nobody compares the tokens."""

    @staticmethod
    def digest(parent: bytes, tokens: bytes) -> bytes:
        return Pages.digest(parent, tokens)[:1]

    def open(self, seq: int, tokens: Sequence[int] = ()) -> int:
        for page, known in list(self.known.items()):
            self.known[page] = known._replace(parent=AnyBytes(), tokens=AnyBytes())
        return super().open(seq, tokens)


class AnyBytes(bytes):
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


class WeakHash(Pages):
    """No bug: collisions all the time, but tokens are compared."""

    @staticmethod
    def digest(parent: bytes, tokens: bytes) -> bytes:
        return Pages.digest(parent, tokens)[:1]


BUGS: list[type[Pages]] = [
    ForkForgetsCounts, CloseLeaksTheTail, RewindKeepsPages, SharedTailIsNotCopied, TailIsSharedForWriting,
    EvictedPagesCanBeFound, RewoundPagesCanBeFound, FreedTwice, FoundPagesStayIdle, HalfPagesAreRemembered,
    ParentsDoNotCount, HashAloneDecides,
]  # fmt: skip
