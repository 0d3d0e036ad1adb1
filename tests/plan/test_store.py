"""The store: kept, atomic, and never fatal."""

import json
import os
from pathlib import Path

import pytest

from edgewise.plan.folder import cache_folder
from edgewise.plan.probe import Fingerprint, build, fingerprint, last_cache_bytes
from edgewise.plan.store import VERSION, Store

HERE = Fingerprint("a CPU", "x86_64", "f", "L3 32M", 2, "avx2", "b")


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    store = Store(HERE, tmp_path / "deep" / "tuning")
    assert store.put("choices", {"a": {"best": "x"}})
    assert Store(HERE, store.folder).get("choices", "a") == {"best": "x"}
    assert not Store(HERE, store.folder).complaint
    assert [p.name for p in store.folder.iterdir()] == [store.path.name]  # no temporary file stays


def test_two_writers_keep_each_others_entries(tmp_path: Path) -> None:
    one, two = Store(HERE, tmp_path), Store(HERE, tmp_path)
    one.put("choices", {"a": {"best": "x"}})
    two.put("choices", {"b": {"best": "y"}})
    two.put("kernels", {"c": {}})
    assert set(Store(HERE, tmp_path).entries("choices")) == {"a", "b"}
    one.put("choices", {"a": {"best": "z"}})
    assert Store(HERE, tmp_path).get("choices", "a") == {"best": "z"}
    assert Store(HERE, tmp_path).entries("kernels") == {"c": {}}


@pytest.mark.parametrize("other", [{"model": "b CPU"}, {"flags": "g"}, {"caches": "L3 8M"}, {"threads": 4},
                                   {"table": "avx512"}, {"build": "c"}])  # fmt: skip
def test_another_machine_has_another_file(tmp_path: Path, other: dict[str, object]) -> None:
    there = Fingerprint(**{**HERE.__dict__, **other})  # type: ignore[arg-type]
    assert there.name != HERE.name
    Store(HERE, tmp_path).put("choices", {"a": {"best": "x"}})
    (tmp_path / f"{HERE.name}.json").rename(tmp_path / f"{there.name}.json")  # copied from elsewhere
    store = Store(there, tmp_path)
    assert store.entries("choices") == {}
    assert "another machine" in store.complaint


@pytest.mark.parametrize("blob", [
    b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000, b'{"version": 99}', b"x" * (5 << 20),
    json.dumps({"version": VERSION, "machine": HERE.__dict__, "choices": [], "kernels": {}}).encode(),
    json.dumps({"version": VERSION, "machine": HERE.__dict__, "choices": {"a": 1}, "kernels": {}}).encode(),
    json.dumps({"version": VERSION, "machine": HERE.__dict__}).encode(),
])  # fmt: skip
def test_a_damaged_file_is_ignored_with_one_sentence(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / f"{HERE.name}.json"
    path.write_bytes(blob)
    store = Store(HERE, tmp_path)
    assert store.entries("choices") == {}
    assert str(path) in store.complaint
    assert store.complaint.count("\n") == 0
    assert store.put("choices", {"a": {"best": "x"}})  # and replaced by the next measurement
    assert Store(HERE, tmp_path).get("choices", "a") == {"best": "x"}


def test_a_cut_off_file_at_every_length(tmp_path: Path) -> None:
    whole = Store(HERE, tmp_path)
    whole.put("choices", {"a": {"best": "x"}})
    blob = whole.path.read_bytes()
    for length in range(0, len(blob), 7):
        whole.path.write_bytes(blob[:length])
        store = Store(HERE, tmp_path)
        assert store.complaint
        assert store.entries("choices") == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(HERE, tmp_path / "file" / "tuning")
    assert not store.put("choices", {"a": {"best": "x"}})
    assert "cannot be written" in store.complaint
    assert store.get("choices", "a") == {"best": "x"}  # still known to this process


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(HERE, tmp_path)
    store.put("choices", {"a": {"best": "x"}})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert not store.put("choices", {"b": {"best": "y"}})
    assert "No space left" in store.complaint
    assert [p.name for p in tmp_path.iterdir()] == [store.path.name]
    assert set(Store(HERE, tmp_path).entries("choices")) == {"a"}


def test_forgetting(tmp_path: Path) -> None:
    store = Store(HERE, tmp_path)
    store.forget()
    store.put("choices", {"a": {"best": "x"}})
    store.forget()
    assert Store(HERE, tmp_path).entries("choices") == {}
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_is_stable_and_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint(2, "avx2") == fingerprint(2, "avx2")
    assert fingerprint(2, "avx2").name != fingerprint(1, "avx2").name
    assert build()
    assert last_cache_bytes() >= 1 << 15
    monkeypatch.setenv("EDGEWISE_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("EDGEWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/edgewise")
