"""Under a memory budget the text is that of the resident model, whatever stays, is guessed, or fails."""

import errno
import os
import re

import numpy as np
import pytest

from edgewise.base import BadInput, OutOfRoom, SamplingParams, Unsupported
from edgewise.models import streaming
from edgewise.models.streaming import _cuts, _parts, budget_of, parse_size
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights.sources.file import FileSource

PROMPTS = [[5, 6, 7, 8, 9, 10, 200, 31] * 5, [9, 8, 7]]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)


def texts(llm: LLM, prompts=PROMPTS) -> list[tuple[int, ...]]:
    results = llm.generate(prompts, GREEDY)
    assert not any(result.outputs[0].error for result in results), [result.outputs[0].error for result in results]
    return [tuple(result.outputs[0].token_ids) for result in results]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("streamed"), {}

    def make(kind: str):
        if kind not in made:
            path = tiny_model(kind, folder / kind)
            made[kind] = path, texts(LLM(path, threads=2, ctx_size=128))
        return made[kind]

    return make


@pytest.fixture
def slots(monkeypatch):
    """Memory of a tiny model is lost in the process's: the number of slots is given instead."""

    def give(count: int) -> None:
        monkeypatch.setattr(streaming.Needs, "count", lambda self, budget: count)

    return give


def budgeted(path, **settings) -> LLM:
    return LLM(path, threads=2, ctx_size=128, ram_budget="8GiB", **settings)


@pytest.mark.parametrize("count", [2, 4, 99])
@pytest.mark.parametrize("kind", ["olmoe", "mixtral", "qwen2_moe", "qwen3_moe", "llama", "gemma3", "phi3"])
def test_the_text_is_that_of_the_resident_model(model, slots, kind, count) -> None:
    path, wanted = model(kind)
    slots(count)
    llm = budgeted(path)
    assert texts(llm) == wanted
    store = llm.parts.stream.running
    assert store.counts.misses > 0
    assert len(store.held()) <= count
    llm.close()


@pytest.mark.parametrize("prefetch", ["lookahead", "transitions", "lookahead:most=5"])
@pytest.mark.parametrize("residency", ["none", "lru", "lfu", "mrs", "ring"])
def test_nor_does_it_depend_on_who_stays_or_is_guessed(model, slots, residency, prefetch) -> None:
    path, wanted = model("olmoe")
    slots(5)
    llm = budgeted(path, residency=residency, prefetch=prefetch)
    assert texts(llm) == wanted
    llm.close()


SAYS = {"eio": "Input/output error", "enospc": "No space left", "end": "cut short", "flip": "checksum"}


@pytest.mark.parametrize("kind", ["eio", "enospc", "end", "short", "flip"])
def test_a_fault_at_any_read_is_a_sentence_or_nothing(model, slots, kind) -> None:
    """Every k-th read of a short run. A wrong bit of a first reading cannot be noticed in a file without checksums."""
    path, _ = model("olmoe")
    slots(3)
    llm = budgeted(path)
    short = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
    wanted = llm.generate(PROMPTS[1:], short)[0].outputs[0].token_ids  # every bundle's sum is known, but for the unread
    stream = llm.parts.stream
    unread = sum(len(stored.pieces) for stored in stream._stored) - len(stream.running._sums)
    at, failed = 0, 0
    while True:
        source = _faulty(stream, kind, at)
        output = llm.generate(PROMPTS[1:], short)[0].outputs[0]
        if source.calls <= at:
            break
        if output.finish_reason == "error":
            assert SAYS[kind] in output.error
            failed += 1
        else:
            assert output.token_ids == wanted
            assert kind == "short" or unread or at == source.calls - 1
        at += 1
    assert at > 8
    assert failed == 0 if kind == "short" else failed > at // 2
    stream.running.source = stream_source(stream)
    assert texts(llm, PROMPTS[1:]) == model("olmoe")[1][1:]
    llm.close()


def test_only_those_fail_whom_a_broken_expert_touches(model, slots) -> None:
    path, _ = model("olmoe")
    slots(5)
    llm = budgeted(path, residency="none")
    stream = llm.parts.stream
    prompts, short = [[5, 6], [9, 8], [31, 7], [200, 44]], SamplingParams(max_tokens=2, temperature=0.0)

    def whole(prompts):
        return [result.outputs[0] for result in llm.generate(prompts, short)]

    touched, plain = [], stream.running._read
    for prompt in prompts:
        seen: set[int] = set()
        stream.running._read = lambda key, at, seen=seen: (seen.add(key), plain(key, at))[1]
        whole([prompt])
        touched.append(seen)
    stream.running._read = plain
    wanted = [output.token_ids for output in whole(prompts)]
    both = 0
    for key, stored in enumerate(stream._stored):
        stream.running.source = _rotten(stream, stored)
        found = whole(prompts)
        hit = [key in seen for seen in touched]
        assert [output.finish_reason == "error" for output in found] == hit
        assert all("Input/output error" in output.error for output, bad in zip(found, hit, strict=True) if bad)
        assert all(o.token_ids == w for o, w, bad in zip(found, wanted, hit, strict=True) if not bad)
        both += any(hit) and not all(hit)
    assert both
    llm.close()


def _rotten(stream, stored):
    """A source that never reads this bundle."""
    places = {piece.extent.offset + piece.offset for piece in stored.pieces}

    def fail(fd, buffers, offset):
        if offset in places:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.preadv(fd, buffers, offset)

    return FileSource(stream.files, preadv=fail)


def stream_source(stream):
    from edgewise.weights.sources import SOURCES

    return SOURCES.build("file", files=stream.files)


def _faulty(stream, kind, at):
    from edgewise.weights.sources import SOURCES

    stream.running.drop_all()
    stream.running.source = SOURCES.build(f"faulty:kind={kind},at={at}", files=stream.files)
    return stream.running.source


def test_a_budget_that_cannot_work_is_refused_naming_the_smallest(model) -> None:
    path, _ = model("olmoe")
    with pytest.raises(OutOfRoom, match=r"budget of 5 MiB is too small.*smallest budget that works is \d+ MiB"):
        LLM(path, ram_budget="5MiB", ctx_size=64)


def test_the_budget_that_is_named_works(model) -> None:
    path, wanted = model("olmoe")
    budgeted(path).close()
    with pytest.raises(OutOfRoom) as refusal:
        LLM(path, threads=2, ctx_size=128, ram_budget="5MiB")
    named = re.search(r"that works is (\d+ MiB)", str(refusal.value))
    assert named is not None
    with LLM(path, threads=2, ctx_size=128, ram_budget=named[1]) as llm:
        assert texts(llm) == wanted


def test_the_reference_device_keeps_everything(model) -> None:
    path, _ = model("llama")
    with pytest.raises(Unsupported, match="needs device 'cpu'"):
        LLM(path, ram_budget="8GiB", device="reference")


def test_a_closed_model_gives_its_threads_back(model) -> None:
    import gc
    import threading

    path, _ = model("llama")
    llm = budgeted(path)
    texts(llm)
    assert any(thread.name.startswith("edgewise-read") for thread in threading.enumerate())
    llm.close()
    gc.collect()
    assert not any(thread.name.startswith("edgewise-read") for thread in threading.enumerate())


def test_rows_are_parted_so_that_their_experts_fit() -> None:
    ids = np.array([[0, 1], [1, 2], [3, 4], [3, 4], [0, 5]], np.int32)
    assert list(_parts(ids, 3)) == [(0, 2), (2, 4), (4, 5)]
    assert list(_parts(ids, 6)) == [(0, 5)]
    assert list(_parts(ids[:1], 2)) == [(0, 1)]


def test_pieces_cover_every_row_once() -> None:
    heads = np.arange(256, dtype=np.int32).reshape(4, 32, 2).transpose(0, 2, 1).ravel()
    for rows, of in ((None, 300), (np.arange(40, 90, dtype=np.int32), 300), (heads, 256), (heads[::-1].copy(), 256)):
        stored = np.arange(of)
        wanted = stored if rows is None else stored[rows]
        out = np.full(len(wanted), -1)
        for row, low, high, index in _cuts(rows, of, 1 << 16):
            part = stored[low:high] if index is None else stored[low:high][index]
            out[row : row + len(part)] = part
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("2GiB", 2 << 30), ("600MB", 600_000_000), ("1.5G", 3 << 29), ("4096", 4096), (7, 7), ("12 kib", 12288)],
)
def test_sizes(text, nbytes) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "two", "-1G", "2GiBs", "0", "1iB"])
def test_what_is_no_size(text) -> None:
    with pytest.raises(BadInput, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(("kind", "count", "member"), [("olmoe", 4, "Mrs"), ("olmoe", 8, "Lru"), ("llama", 1, "Ring")])
def test_who_decides_when_nobody_says(model, slots, kind, count, member) -> None:
    path, _ = model(kind)
    slots(count)
    llm = budgeted(path)
    assert type(llm.parts.stream.residency).__name__ == member
    llm.close()


def test_a_budget_when_nobody_says(monkeypatch) -> None:
    monkeypatch.setattr(streaming, "free_bytes", lambda: 900)
    monkeypatch.setattr(streaming, "resident_bytes", lambda: 100)
    fits, too_large = 500, 5000
    assert budget_of(None, fits, 2000, False, True) is None
    assert budget_of(None, too_large, 2000, False, False) is None  # the device cannot: refused elsewhere
    assert budget_of(None, too_large, 2000, False, True) == 900
    assert budget_of(None, fits, 2000, True, True) == 900  # laid out for it
    assert budget_of("auto", fits, 700, False, True) == 630
    assert budget_of("2KiB", fits, 700, False, True) == 2048
    monkeypatch.setattr(streaming, "free_bytes", lambda: None)  # a system that does not say
    assert budget_of("auto", fits, 700, False, True) == 630
    assert budget_of("auto", fits, 0, False, True) == 1 << 50
