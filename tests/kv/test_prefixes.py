"""Prefixes on disk: what comes back is what went, or nothing; whatever lies in the folder, and however much it is."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput, SeqId
from edgewise.kernels.api import Device
from edgewise.kv.paged import PagedCache
from edgewise.kv.pages import Known, Pages
from edgewise.kv.prefixes import PrefixStore, parse_prefix_cache
from edgewise.testing.kv_contract import HEAD_DIM, KV_HEADS, LAYERS

MINE, OTHER = b"m" * 16, b"o" * 16
PAGE = 16
TOKENS = list(range(100, 180))


def cache(device: Device, store: PrefixStore | None, pages: int = 16, dtype: str = "f16") -> PagedCache:
    made = PagedCache(device, LAYERS, KV_HEADS, HEAD_DIM, pages, PAGE, dtype)
    if store is not None:
        made.keep_in(store)
    return made


def store_of(folder: Path, made: PagedCache, fingerprint: bytes = MINE, **more: int) -> PrefixStore:
    store = PrefixStore(folder, fingerprint, PAGE * made.token_bytes, **more)
    made.keep_in(store)
    return store


def filled(made: PagedCache, seed: int, tokens: list[int] = TOKENS) -> list[bytes]:
    """A sequence whose pages hold something; its layers' bytes."""
    seq, numbers = SeqId(seed), np.random.default_rng(seed)
    made.open(seq, ())
    made.reserve(seq, len(tokens))
    pages = -(-len(tokens) // PAGE)
    size = PAGE * made.token_bytes // LAYERS * pages
    made.adopt(seq, len(tokens), [numbers.integers(0, 250, size, np.uint8) for _ in range(LAYERS)])
    made.remember(seq, tokens)
    return [chunk.tobytes() for chunk in made.export(seq)]


def keep_all(made: PagedCache) -> None:
    while made.keep(1 << 20):
        time.sleep(0.001)


def written(made: PagedCache, store: PrefixStore) -> None:
    keep_all(made)
    store.close()


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_another_cache_goes_on_with_the_same_bytes(device: Device, tmp_path: Path, dtype: str) -> None:
    first = cache(device, None, dtype=dtype)
    store = store_of(tmp_path, first)
    want = filled(first, 1)
    keep_all(first)
    store.close()
    assert store.written == 5
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    second = cache(device, None, dtype=dtype)
    again = store_of(tmp_path, second)
    assert second.open(SeqId(9), [*TOKENS, 1]) == 80
    assert [chunk.tobytes() for chunk in second.export(SeqId(9))] == want
    assert again.recalled == 5
    second.close(SeqId(9))
    assert second.open(SeqId(8), [*TOKENS, 1]) == 80  # from memory now
    assert again.recalled == 5
    assert second.open(SeqId(7), TOKENS) == 64  # the last token is computed
    assert second.open(SeqId(6), [*TOKENS[:40], *TOKENS[:40]]) == 32
    assert not second.keep(1 << 20)  # nothing that is not there
    again.close()
    assert again.written == 0


def test_damaged_foreign_and_missing_files_are_computed_again(tmp_path: Path, device: Device) -> None:
    first = cache(device, None)
    store = store_of(tmp_path, first)
    filled(first, 1)
    keep_all(first)
    store.close()
    links = list(first.pages.links([*TOKENS, 1]))
    files = [store._path(link.digest) for link in links]
    for at in (0, 50, 200, -1):  # magic, hash, tokens or data, checksum
        whole = files[2].read_bytes()
        broken = bytearray(whole)
        broken[at] ^= 1
        files[2].write_bytes(broken)
        made = cache(device, None)
        again = store_of(tmp_path, made)
        with pytest.warns(UserWarning, match="is damaged and was deleted"):
            assert made.open(SeqId(1), [*TOKENS, 1]) == 32
        assert (made.length(SeqId(1)), made.pages.free) == (32, 14)
        assert again.faults == 1
        assert not files[2].exists()
        files[2].write_bytes(whole)
    files[2].write_bytes(whole[:100])
    made = cache(device, None)
    store_of(tmp_path, made)
    with pytest.warns(UserWarning, match="damaged"):
        assert made.open(SeqId(1), [*TOKENS, 1]) == 32
    files[2].write_bytes(files[1].read_bytes())  # whole, but not what its name says
    made = cache(device, None)
    store_of(tmp_path, made)
    with pytest.warns(UserWarning, match="something else than its name says"):
        assert made.open(SeqId(1), [*TOKENS, 1]) == 32
    files[2].write_bytes(whole)
    made = cache(device, None)
    store_of(tmp_path, made)
    files[4].unlink()
    assert made.open(SeqId(1), [*TOKENS, 1]) == 64
    made = cache(device, None)
    store_of(tmp_path, made, OTHER)  # another model
    assert made.open(SeqId(1), [*TOKENS, 1]) == 0
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.warns(UserWarning, match="1 files in .* are none of edgewise's"):
        store_of(tmp_path, cache(device, None))
    assert (tmp_path / "letter.txt").exists()


def test_pages_that_hash_alike_are_told_apart(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pages, "digest", staticmethod(lambda parent, tokens: b"x" * 32))
    first = cache(device, None)
    store = store_of(tmp_path, first)
    filled(first, 1, TOKENS[:17])
    keep_all(first)
    store.close()
    made = cache(device, None)
    store_of(tmp_path, made)
    with pytest.warns(UserWarning, match="something else"):
        assert made.open(SeqId(1), TOKENS[20:40]) == 0


def test_a_killed_process_leaves_nothing(tmp_path: Path, device: Device) -> None:
    made = cache(device, None)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = [f".{dead.pid}-00000000-{'a' * 64}.part", f".{os.getpid()}-00000000-{'a' * 64}.part"]
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    running = tmp_path / f".{os.getppid()}-00000000-{'a' * 64}.part"
    running.write_bytes(b"half")
    store_of(tmp_path, made)
    assert list(tmp_path.iterdir()) == [running]


def test_the_folder_is_bounded_and_the_longest_unused_go_first(tmp_path: Path, device: Device) -> None:
    made = cache(device, None, pages=64)
    size = PrefixStore(tmp_path, MINE, PAGE * made.token_bytes)._size(Known(b"d" * 32, b"", b"t" * 64))
    store = store_of(tmp_path, made, limit_bytes=10 * size)
    texts = [[seed * 1000 + at for at in range(48)] for seed in range(6)]
    for seed, text in enumerate(texts):
        filled(made, seed, text)
        if seed > 2:
            made.open(SeqId(100 + seed), [*texts[0], 1])  # the first stays in use
        keep_all(made)
        while store._staged:
            time.sleep(0.001)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10 * size
    store.close()
    assert store.evicted
    last = cache(device, None, pages=64)
    store_of(tmp_path, last)
    found = [last.open(SeqId(seed), [*text, 1]) for seed, text in enumerate(texts)]
    assert found[0] == found[5] == 48
    assert found[1] == 0
    assert sum(found) // PAGE * size == sum(file.stat().st_size for file in tmp_path.iterdir())  # no tail without head


def test_no_room_in_memory_or_on_disk(tmp_path: Path, device: Device) -> None:
    first = cache(device, None)
    store = store_of(tmp_path, first)
    filled(first, 1)
    keep_all(first)
    store.close()
    small = cache(device, None, pages=3)
    store_of(tmp_path, small)
    assert small.open(SeqId(1), [*TOKENS, 1]) == 48
    full = cache(device, None)
    (tmp_path / "gone").mkdir()
    again = store_of(tmp_path / "gone", full)
    (tmp_path / "gone").rmdir()
    filled(full, 2)
    with pytest.warns(UserWarning, match="nothing more is written"):
        written(full, again)
    assert again._broken
    slow = cache(device, None)
    gate = store_of(tmp_path, slow)
    gate._again = lambda tokens: 1e-6
    gate._rate = 1.0
    assert slow.open(SeqId(1), [*TOKENS, 1]) == 0  # computing is quicker than this disk


def test_what_a_user_may_say(tmp_path: Path) -> None:
    assert parse_prefix_cache("none") is None
    assert parse_prefix_cache(str(tmp_path / "new")) == (tmp_path / "new", 8 << 30)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert parse_prefix_cache(f"{tmp_path}:500MB") == (tmp_path, 500 << 20)
    for wrong in ("", f"{tmp_path}:0", "/proc/nowhere"):
        with pytest.raises(BadInput):
            parse_prefix_cache(wrong)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(BadInput, match="Anybody"):
        parse_prefix_cache(str(tmp_path / "open"))
