"""Paged cache: fixed-size pages of keys and values, shared between sequences by count and copied on the first write.

Paper:  Kwon et al., Efficient Memory Management for LLM Serving with PagedAttention, 2023, arXiv:2309.06180
Exact.
Needs:  a device with alloc_pages, copy_page, attn_plan, append and attention
Cost:   less than one page of waste a sequence; O(1) bookkeeping a token; at most one page copied after a fork; one hash
        a full page
Status: kept
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, ClassVar

import numpy as np

from edgewise.base import BadInput, Cap, SeqId
from edgewise.kernels.api import Array, AttnSpec, Device, SeqRows
from edgewise.kv.api import Chunk
from edgewise.kv.pages import Pages
from edgewise.kv.prefixes import PrefixStore
from edgewise.kv.types import token_bytes


class PagedCache:
    """One pool per layer on the device, one page table per sequence, the same table for all layers."""

    gives: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND, Cap.FORK, Cap.EXPORT, Cap.TREE})
    replays: ClassVar[bool] = True

    def __init__(
        self,
        device: Device,
        layers: int,
        kv_heads: int,
        head_dim: int,
        pages: int,
        page_tokens: int = 16,
        dtype: str = "f16",
        reuse: bool = True,
    ) -> None:
        if min(layers, kv_heads, head_dim) < 1:
            raise BadInput(f"A cache of {layers} layers, {kv_heads} KV heads and head size {head_dim} makes no sense.")
        self.token_bytes = token_bytes(layers, kv_heads, head_dim, dtype)
        self.device = device
        self.dtype = dtype
        self.page_tokens = page_tokens
        self.pages = Pages(pages, page_tokens, reuse)
        self.prefixes: PrefixStore | None = None  # on disk
        self._pools = [device.alloc_pages(pages, page_tokens, kv_heads, head_dim, dtype) for _ in range(layers)]

    def free_tokens(self) -> int:
        return self.pages.free * self.page_tokens

    def length(self, seq: SeqId) -> int:
        return self.pages.holdings[seq].length

    def open(self, seq: SeqId, tokens: Sequence[int]) -> int:
        known = self.pages.open(seq, tokens)
        return known if self.prefixes is None else self._recall(self.prefixes, seq, tokens, known)

    def remember(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self.pages.remember(seq, tokens)

    def reserve(self, seq: SeqId, length: int) -> None:
        copy = self.pages.reserve(seq, length)
        if copy is not None:
            for pool in self._pools:
                self.device.copy_page(pool, *copy)

    def begin(self, seqs: Sequence[SeqRows], copies: Sequence[tuple[int, SeqId, int]] = ()) -> Any:
        tables = []
        for rows in seqs:
            held = self.pages.holdings[SeqId(rows.seq)]
            # Our own mistake if it fails: a step that was not reserved would write into someone else's page.
            assert held.length == rows.past or (copies and held.length < rows.past), (rows, held.length)
            assert rows.past + rows.count <= held.writable, (rows, held.writable)
            tables.append(held.view)
        if not copies:
            return self.device.attn_plan(seqs, tables, self.page_tokens)
        places = []
        for row, seq, position in copies:
            held = self.pages.holdings[seq]
            assert held.length <= position < held.writable, (seq, position, held.length, held.writable)
            places.append((row, int(held.view[position // self.page_tokens]), position % self.page_tokens))
        return self.device.attn_plan(seqs, tables, self.page_tokens, places)

    def attend(self, at: AttnSpec, q: Array, k: Array, v: Array, plan: Any) -> Array:
        pool = self._pools[at.layer]
        self.device.append(pool, k, v, plan)
        return self.device.attention(at, q, pool, plan)

    def commit(self, seqs: Sequence[SeqRows]) -> None:
        for rows in seqs:
            self.pages.commit(rows.seq, rows.past + rows.count)

    def rewind(self, seq: SeqId, length: int) -> None:
        self.pages.rewind(seq, length)

    def fork(self, seq: SeqId, into: SeqId) -> None:
        self.pages.fork(seq, into)

    def become(self, seq: SeqId, other: SeqId) -> None:
        self.pages.become(seq, other)

    def export(self, seq: SeqId, start: int = 0) -> Iterator[Chunk]:
        held = self.pages.holdings[seq]
        pages = held.view[start // self.page_tokens : -(-held.length // self.page_tokens)]
        for pool in self._pools:
            yield self.device.save_pages(pool, pages)

    def adopt(self, seq: SeqId, length: int, chunks: Iterable[Chunk], start: int = 0) -> None:
        held = self.pages.holdings[seq]
        assert start % self.page_tokens == 0, start
        assert held.length >= start, (seq, held.length, start)
        assert length <= held.writable, (seq, length, held.writable)
        pages = held.view[start // self.page_tokens : -(-length // self.page_tokens)]
        for pool, chunk in zip(self._pools, chunks, strict=True):
            self.device.load_pages(pool, pages, chunk)
        self.pages.commit(seq, length)

    def close(self, seq: SeqId) -> None:
        self.pages.close(seq)

    # ── prefixes on disk ────────────────────────────────────────────────────────────────

    def keep_in(self, store: PrefixStore) -> None:
        """From now on prefixes that are not in memory are looked for there, and `keep` writes those that are."""
        self.prefixes = store
        self.pages.fresh = dict.fromkeys(self.pages.known)

    def keep(self, nbytes: int) -> bool:
        """Hands about so many bytes of pages that became known to the store. True: there are more."""
        store, fresh, taken = self.prefixes, self.pages.fresh, 0
        if store is None or fresh is None:
            return False
        while fresh and taken < nbytes and store.has_room():
            page = next(iter(fresh))
            del fresh[page]
            known = self.pages.known[page]
            if not store.has(known.digest):
                at = np.array([page], np.int32)
                store.put(known, np.concatenate([self.device.save_pages(pool, at) for pool in self._pools]))
                taken += self.page_tokens * self.token_bytes
        return bool(fresh)

    def _recall(self, store: PrefixStore, seq: SeqId, tokens: Sequence[int], known: int) -> int:
        """Goes on from disk where memory ends; where the disk is wrong, or slower than computing, the prefix ends."""
        held, size = self.pages.holdings[seq], self.page_tokens
        found = list(takewhile(lambda link: store.has(link.digest), self.pages.links(tokens, held.chain)))
        found = found[: self.pages.free]
        if found and store.pays(len(found), len(found) * size):
            self.pages.reserve(seq, known + len(found) * size)
            for link in found:
                data = store.read(link)
                if data is None:
                    break
                at = held.view[known // size : known // size + 1]
                for pool, part in zip(self._pools, np.split(data, len(self._pools)), strict=True):
                    self.device.load_pages(pool, at, part)
                known += size
                self.pages.commit(seq, known)
            self.pages.remember(seq, tokens)
            self.pages.rewind(seq, known)  # what was reserved and not needed
        store.used(held.chain)
        return known
