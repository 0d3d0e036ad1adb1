"""Prefixes kept on disk: what keys and values depend on, and when pages are written: when nobody wants anything."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise import __version__
from edgewise.assemble import Assembly
from edgewise.base import Unsupported
from edgewise.kv.prefixes import FINGERPRINT, Keeping, PrefixStore
from edgewise.plan.float8 import choose_float8
from edgewise.plan.probe import build

SLICE_BYTES = 8 << 20  # at once: milliseconds, for which a request that comes just then waits
CLOSE_S = 10.0  # that ending may take for it
SAMPLES, SAMPLE_BYTES = 256, 4096  # of each file of weights
INDIFFERENT = frozenset({  # options that change no key and no value (law 1)
    "threads", "max_num_seqs", "prefill_chunk", "policy", "swap", "seed", "speculator", "verifier", "sampler", "tuner",
    "ram_budget", "residency", "prefetch", "source", "kv_cache_dtype", "device", "fp8",
})  # fmt: skip


class Prefixes:
    """The pages that a model knows, and a folder of them."""

    def __init__(self, cache: Keeping, store: PrefixStore) -> None:
        self._cache, self.store = cache, store

    def keep(self) -> bool:
        """Hands some to the disk's thread; to be called when there is nothing else to do. True: there are more."""
        return self._cache.keep(SLICE_BYTES)

    def close(self) -> None:
        end = time.monotonic() + CLOSE_S
        while self.keep() and time.monotonic() < end:
            if not self.store.has_room():
                time.sleep(0.005)
        self.store.close(max(0.1, end - time.monotonic()))


def keep_prefixes(parts: Assembly, wanted: tuple[Path, int] | None, options: Mapping[str, Any]) -> Prefixes | None:
    """wanted: a folder, and bytes at most. options: what the model was put together with. Raises Unsupported."""
    if wanted is None:
        return None
    if not isinstance(parts.kv, Keeping):
        raise Unsupported(f"This KV cache ({type(parts.kv).__name__}) has no pages that could be kept. Try kv 'paged'.")
    engine, cache = parts.engine, parts.kv

    def again(tokens: int) -> float:
        cost = engine.meter.cost
        return -(-tokens // engine.rows) * cost.step_s + cost.seconds(tokens)

    page_bytes = cache.page_tokens * cache.token_bytes
    store = PrefixStore(wanted[0], _fingerprint(parts, cache, options), page_bytes, wanted[1], again)
    cache.keep_in(store)
    return Prefixes(cache, store)


def _fingerprint(parts: Assembly, cache: Keeping, options: Mapping[str, Any]) -> bytes:
    """Of everything that keys and values depend on: the weights (sizes, times, samples of them), their settings, how
    they are computed and by what, and how pages are laid out."""
    told = {name: value for name, value in options.items() if name not in INDIFFERENT}
    found = hashlib.blake2b(digest_size=FINGERPRINT)
    found.update(
        repr((
            __version__, build(), type(parts.device).__name__, parts.device.info.isa,
            choose_float8(options.get("fp8", "auto"), parts.device)[0], replace(parts.spec, extra={}), parts.context,
            cache.dtype, cache.page_tokens, cache.token_bytes, sorted(told.items()),
        )).encode()
    )  # fmt: skip
    settings = parts.header.folder / "config.json"
    if parts.header.dialect == "hf":
        found.update(settings.read_bytes())
    for path in sorted(parts.header.files):
        found.update(_sampled(path))
    return found.digest()


def _sampled(path: Path) -> bytes:
    stat, found = path.stat(), hashlib.blake2b(digest_size=32)
    found.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb", buffering=0) as file:
        step = max(SAMPLE_BYTES, stat.st_size // SAMPLES)
        for at in range(0, stat.st_size, step):
            file.seek(at)
            found.update(file.read(SAMPLE_BYTES))
    return found.digest()
