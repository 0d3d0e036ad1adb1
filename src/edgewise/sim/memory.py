"""Page pools that hold numbers instead of keys and values: enough to see whether every token finds what it should.

A slot holds the chained hash of all tokens up to its own. So a token's value depends on the whole text before it, as
attention's does, and a page lost, mixed up or shared wrongly changes every token after it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.kernels.api import DeviceInfo, Ints
from edgewise.kv import CACHES

MASK = (1 << 64) - 1
START = 0x9E3779B97F4A7C15


class SlotMemory:
    """The part of a device that a paged cache needs. A pool is one flat list: slot = page * page_tokens + offset."""

    def __init__(self) -> None:
        self.info = DeviceInfo("memory", "python", 1, 0)
        self._page_tokens = 16

    def alloc_pages(self, pages: int, page_tokens: int, kv_heads: int, head_dim: int, dtype: str) -> list[int]:
        self._page_tokens = page_tokens
        return [0] * (pages * page_tokens)

    def copy_page(self, pool: list[int], src: int, dst: int) -> None:
        size = self._page_tokens
        pool[dst * size : (dst + 1) * size] = pool[src * size : (src + 1) * size]

    def save_pages(self, pool: list[int], pages: Ints) -> npt.NDArray[np.uint8]:
        size = self._page_tokens
        flat = [value for page in pages.tolist() for value in pool[page * size : (page + 1) * size]]
        return np.array(flat, np.uint64).view(np.uint8)

    def load_pages(self, pool: list[int], pages: Ints, data: npt.NDArray[np.uint8]) -> None:
        size, values = self._page_tokens, data.view(np.uint64).tolist()
        for at, page in enumerate(pages.tolist()):
            pool[page * size : (page + 1) * size] = values[at * size : (at + 1) * size]


def slot_cache(pages: int, page_tokens: int = 16, token_bytes: int = 0, **options: Any) -> Any:
    """The engine's own paged cache over such a pool. token_bytes: what a token is said to weigh (for swap)."""
    cache = CACHES.build(
        "paged", device=SlotMemory(), layers=1, kv_heads=1, head_dim=1, pages=pages, page_tokens=page_tokens, **options
    )
    if token_bytes:
        cache.token_bytes = token_bytes
    return cache


def follow(before: int, token: int) -> int:
    """The value of a slot: from the slot before it and its own token."""
    mixed = (before ^ (token + 1)) * 0x5851F42D4C957F2D & MASK
    return mixed ^ mixed >> 29
