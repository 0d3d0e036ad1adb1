"""The store: what is pinned is here and right, slots suffice, a fault touches whoever asked and nobody else."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from edgewise.base import BadInput, OutOfRoom
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.weights.api import Extent, Key
from edgewise.weights.prefetchers import PREFETCHERS
from edgewise.weights.residency import RESIDENCIES
from edgewise.weights.sources import SOURCES
from edgewise.weights.store import Piece, Stored, WeightStore

COUNT, OUT, IN = 8, 48, 64
MATRIX = 4 * OUT * IN
PAD = 100  # bytes before each matrix: nothing lies on a page


@pytest.fixture(scope="module")
def device() -> CpuDevice:
    return CpuDevice(threads=2)


@pytest.fixture
def matrices() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((COUNT, 2, OUT, IN), np.float32)


class Shelf:
    """A file with COUNT bundles of two matrices, and a store over it."""

    def __init__(self, device, matrices, path: Path, slots: int, residency="lru", source="file", readers=2):
        path.write_bytes(b"".join(b"." * PAD + m.tobytes() for m in matrices.reshape(-1, OUT, IN)))
        self.device, self.matrices, stored = device, matrices, []
        self.weights = []
        for number in range(COUNT):
            bundle = device.bundle()
            self.weights.append([bundle.add(OUT, IN, "F32") for _ in range(2)])
            pieces = []
            for part in range(2):
                at = (2 * number + part) * (MATRIX + PAD) + PAD
                extent, half = Extent(0, at, MATRIX), MATRIX // OUT * 32
                pieces += [Piece(extent, 0, half, part), Piece(extent, half, MATRIX - half, part, 32)]
            stored.append(Stored(Key(number, "weights"), bundle, pieces))
        self.store = WeightStore(
            stored, device.slots(slots, stored[0].bundle.nbytes), SOURCES.build(source, files=[path], direct=True),
            RESIDENCIES.build(residency, count=COUNT), readers=readers,
        )  # fmt: skip

    def right(self, key: int) -> bool:
        x = np.random.default_rng(key).standard_normal((1, IN), np.float32)
        for weight, matrix in zip(self.weights[key], self.matrices[key], strict=True):
            whole = self.device.load((OUT, IN), "F32", lambda at, n, m=matrix: m.tobytes()[at : at + n])
            wanted = np.array(self.device.linear(self.device.upload(x), whole))
            if not np.array_equal(np.array(self.device.linear(self.device.upload(x), weight)), wanted):
                return False
        return True


@pytest.fixture
def shelf(device, matrices, tmp_path):
    made = []

    def make(slots=3, **settings) -> Shelf:
        made.append(Shelf(device, matrices, tmp_path / "weights.gguf", slots, **settings))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_any_walk_of_pins_and_hints_gives_the_right_weights(shelf, residency) -> None:
    chance, shelf = random.Random(5), shelf(slots=3, residency=residency)
    store = shelf.store
    for turn in range(40):
        keys = chance.sample(range(COUNT), chance.randint(1, 3))
        if chance.random() < 0.5:
            store.hint(chance.sample(range(COUNT), 3))
        if chance.random() < 0.3:
            store.residency.routed(0, [chance.random() for _ in range(COUNT)])
        with store.pin(keys):
            assert set(keys) <= set(store.held())
            assert len(store.held()) <= 3
            assert all(shelf.right(key) for key in keys), f"turn {turn}"
    counts = store.counts
    assert counts.asked == counts.hits + counts.late + counts.misses
    assert counts.bytes_read >= counts.misses * 2 * MATRIX
    store.drop_all()
    assert not store.held()


def test_what_stays_is_not_read_again_and_without_residency_it_is(shelf) -> None:
    for residency, reads in (("lru", 1), ("none", 4)):
        store = shelf(residency=residency).store
        for _ in range(4):
            with store.pin([2]):
                pass
        assert store.counts.misses == reads, residency


def test_more_than_there_are_slots_is_refused_and_leaves_nothing_pinned(shelf) -> None:
    shelf = shelf(slots=2)
    wanted = "3 bundles of weights are wanted at once, but there is room for 2"
    with pytest.raises(OutOfRoom, match=wanted), shelf.store.pin([0, 1, 2]):
        raise AssertionError
    with shelf.store.pin([3, 4]):
        assert all(map(shelf.right, (3, 4)))


def test_a_guess_costs_no_pinned_bundle_its_slot(shelf) -> None:
    shelf = shelf(slots=2)
    with shelf.store.pin([0, 1]):
        shelf.store.hint([2, 3, 4])
        assert all(map(shelf.right, (0, 1)))
    assert shelf.store.counts.hinted == 0
    shelf.store.hint([5])
    with shelf.store.pin([5]):
        assert shelf.right(5)
    assert shelf.store.counts.hinted_used == 1


def test_what_was_not_pinned_is_refused(shelf, device) -> None:
    shelf = shelf()
    with shelf.store.pin([0]), pytest.raises(BadInput, match="it was not pinned"):
        shelf.right(1)


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("kind", ["eio", "end", "flip", "short"])
def test_the_kth_read_fails_for_whoever_asked_and_nobody_else(shelf, kind, at) -> None:
    shelf = shelf(slots=4, source=f"faulty:kind={kind},at={at + 4}", readers=1)
    said = []
    with shelf.store.pin([0]):  # its checksums are known from now on
        assert shelf.right(0)
    shelf.store.drop_all()
    for key in (0, 1):
        try:
            with shelf.store.pin([key]):
                known = kind != "flip" or key == 0  # a first reading has nothing to be compared with
                assert not known or shelf.right(key)
        except BadInput as problem:
            said.append(str(problem))
            with shelf.store.pin([key]):  # the disk has come to its senses
                assert shelf.right(key)
    assert len(said) == {"short": 0, "flip": at < 4}.get(kind, 1)
    words = {"eio": "failed: Input/output error", "end": "cut short", "flip": "weights: .* have their checksum"}
    assert all(re.search(words[kind], sentence) for sentence in said)


def test_a_guess_that_fails_is_nobodys_trouble(shelf) -> None:
    shelf = shelf(source="faulty:kind=eio,at=0", readers=1)
    shelf.store.hint([0])
    shelf.store.drop_all()  # waits for it
    with shelf.store.pin([1]):
        assert shelf.right(1)
    with shelf.store.pin([0]):
        assert shelf.right(0)


def test_a_slow_source_takes_its_time_and_gives_the_same_bytes(tmp_path) -> None:
    path = tmp_path / "data.gguf"
    path.write_bytes(bytes(range(256)) * 64)
    for direct in (False, True):
        source = SOURCES.build("slow:latency_s=0.001,bytes_per_s=1e9", files=[path], direct=direct)
        into = bytearray(300)
        source.read_into(Extent(0, 100, 9000), 7, memoryview(into))
        assert bytes(into) == (bytes(range(256)) * 64)[107:407]
        assert bytes(source.glance(Extent(0, 100, 9000), 8000, 1000)) == (bytes(range(256)) * 64)[8100:9100]
        source.close()
    with pytest.raises(BadInput, match="bytes_per_s above 0"):
        SOURCES.build("slow:bytes_per_s=0", files=[path])


def test_direct_reads_reach_the_last_byte_of_a_file(tmp_path) -> None:
    path = tmp_path / "data.gguf"
    path.write_bytes(bytes(range(256)) * 33 + b"end")
    source = SOURCES.build("file", files=[path], direct=True)
    assert bytes(source.read(Extent(0, 33 * 256, 3), 0, 3)) == b"end"
    with pytest.raises(BadInput, match="it shrank"):
        source.read(Extent(0, 33 * 256, 9), 0, 9)
    source.close()


def victims(name: str, uses: list[int], held: list[int]) -> int | None:
    """Who leaves for bundle 7 after these uses."""
    residency = RESIDENCIES.build(name, count=COUNT)
    here: set[int] = set()
    for key in uses:
        if key not in here:
            here.add(key)
            residency.came(key)
        residency.used(key)
    return residency.victim(7, True, lambda key: key in held)


def test_who_leaves() -> None:
    assert victims("lru", [0, 1, 2, 0], [0, 1, 2]) == 1
    assert victims("lru", [0, 1, 2, 0], [2]) == 2
    assert victims("lru", [0, 1], []) is None
    assert victims("lfu", [0, 0, 1, 2, 2, 2], [0, 1, 2]) == 1
    assert victims("ring", [0, 1, 2, 3, 6], [0, 1, 2, 6]) == 6  # just computed: its next turn is the farthest
    assert victims("ring", [0, 1, 2, 3, 6], [0, 1, 2]) == 2
    assert victims("ring", [5, 6], []) is None
    mrs = RESIDENCIES.build("mrs", count=4)
    for key in range(4):
        mrs.came(key)
    mrs.routed(0, [0.1, 0.2, 0.3, 0.4])
    mrs.routed(0, [0.9, 0.05, 0.03, 0.02])
    assert mrs.victim(3, True, lambda key: True) == 1
    assert mrs.victim(3, True, lambda key: key != 1) == 2


def test_a_ring_keeps_a_guess_out_when_its_turn_is_farther_than_anybodys() -> None:
    ring = RESIDENCIES.build("ring", count=COUNT)
    for key in (3, 4, 5):
        ring.came(key)
    ring.used(3)
    assert ring.victim(2, False, lambda key: True) is None
    assert ring.victim(6, False, lambda key: key != 3) is None
    ring.used(4)
    assert ring.victim(6, False, lambda key: key != 4) == 3


def test_what_is_guessed() -> None:
    nothing, ahead, table = (PREFETCHERS.build(name) for name in ("none", "lookahead:most=2", "transitions:most=1"))
    assert not nothing.wants(0, [1, 2], lambda: [3, 4, 5])
    assert ahead.wants(0, [1, 2], lambda: [3, 4, 5]) == [3, 4]
    for chosen in ([5], [4], [5]):
        table.wants(0, [1], list)
        table.wants(1, chosen, list)
    assert table.wants(0, [1], list) == [5]
