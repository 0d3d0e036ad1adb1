"""A replayed step gives the bits of the verbs it stands for, for every architecture, and steps aside when it must."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Tap
from edgewise.kernels.api import Array, Device, SeqRows
from edgewise.kernels.devices import DEVICES
from edgewise.kv.paged import PagedCache
from edgewise.models import load_model
from edgewise.models.api import Batch, Model
from edgewise.models.passes import TRIES, Pass
from edgewise.testing.tiny import ARCHITECTURES, VOCAB, tiny_model
from edgewise.weights import open_checkpoint

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def cpu() -> Device:
    return pytest.importorskip("edgewise.kernels.devices.cpu").CpuDevice(2)


class Steps:
    """Drives a pass over a cache of its own. Pieces are (sequence, tokens, wanted): the last `wanted` get logits."""

    def __init__(self, model: Model, device: Device, listen: Any = None, pages: int = 90) -> None:
        spec = model.spec
        self.device, self.listen = device, listen
        self.kv = PagedCache(device, spec.layers, spec.kv_heads, spec.head_dim, pages, dtype="f16")
        self.run = Pass(model, device)
        self.random = np.random.default_rng(5)

    def step(self, *pieces: tuple[int, int, int]) -> Any:
        seqs, positions, outputs, start = [], [], [], 0
        for seq, count, wanted in pieces:
            if seq not in self.kv.pages.holdings:
                self.kv.open(seq, ())
            past = self.kv.length(seq)
            self.kv.reserve(seq, past + count)
            seqs.append(SeqRows(seq, start, count, past))
            positions += range(past, past + count)
            outputs += range(start + count - wanted, start + count)
            start += count
        ids = self.random.integers(0, VOCAB, start).astype(np.int32)
        batch = Batch(
            ids, np.array(positions, np.int32), tuple(seqs), np.array(outputs, np.int32), self.kv,
            self.kv.begin(seqs), self.listen,
        )  # fmt: skip
        logits = self.run.run(batch)
        self.kv.commit(seqs)
        return None if logits is None else np.array(self.device.download(logits))


def deaf(tap: Tap, layer: int, value: Array) -> None:
    """Listening is what keeps a step from being replayed."""


SCHEDULE = (
    [(0, 9, 1)], [(1, 4, 0)], [(0, 1, 1)], [(1, 17, 0), (2, 5, 0)], [(0, 1, 1), (1, 1, 1), (2, 1, 1)],
    [(0, 1, 1), (1, 30, 1), (2, 3, 2)], [(2, 4, 4)], [(0, 1, 1)], [(3, 40, 0)], [(3, 1, 1), (0, 1, 1)], [(2, 2, 1)],
)  # fmt: skip


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_replays_are_bitwise_the_verbs(architecture: str, tmp_path: Path, cpu: Device) -> None:
    model = load_model(open_checkpoint(tiny_model(architecture, tmp_path, head_dim=32)), cpu)
    replayed, plain = Steps(model, cpu), Steps(model, cpu, deaf)
    for pieces in SCHEDULE:
        got, want = replayed.step(*pieces), plain.step(*pieces)
        if want is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    assert replayed.run.why == ""
    assert all(replayed.run._programs), "a kind of step was not recorded"
    assert not any(plain.run._programs)


def test_a_table_that_grows_is_recorded_again(tmp_path: Path, cpu: Device) -> None:
    model = load_model(open_checkpoint(tiny_model("llama", tmp_path, max_position_embeddings=3000)), cpu)
    replayed, plain = Steps(model, cpu, pages=200), Steps(model, cpu, deaf, pages=200)
    reaches = []
    for _ in range(2):
        for pieces in ([(0, 500, 0)], [(0, 1, 1)], [(0, 600, 0)], [(0, 1, 1)], [(0, 1, 1)]):
            got, want = replayed.step(*pieces), plain.step(*pieces)
            assert want is None or np.array_equal(got.view(np.uint32), want.view(np.uint32))
            program = replayed.run._programs[1]
            reaches.append(program.reach if program else 0)
    assert 1024 in reaches
    assert reaches[-1] > 2048


def test_the_reference_device_has_no_recording(tmp_path: Path) -> None:
    device = DEVICES.build("reference")
    model = load_model(open_checkpoint(tiny_model("llama", tmp_path)), device)
    steps = Steps(model, device)
    assert steps.step((0, 3, 1)).shape == (1, VOCAB)
    assert steps.step((0, 1, 1)).shape == (1, VOCAB)
    assert not any(steps.run._programs)


class Peeking:
    """A model that looks at its hidden state on the way: no replay could do that."""

    replays = True

    def __init__(self, inner: Any) -> None:
        self.inner, self.spec, self.looked = inner, inner.spec, 0

    def embed(self, batch: Batch) -> Array:
        return self.inner.embed(batch)

    def blocks(self, x: Array, batch: Batch, layers: Any) -> Array:
        self.looked += 1
        assert np.isfinite(np.asarray(x)).all()
        return self.inner.blocks(x, batch, layers)

    def states(self, x: Array) -> Array:
        return self.inner.states(x)

    def logits(self, states: Array) -> Array:
        return self.inner.logits(states)

    def head(self, x: Array, batch: Batch) -> Array:
        return self.inner.head(x, batch)


def test_a_model_that_looks_inside_stays_as_it_is(tmp_path: Path, cpu: Device) -> None:
    model = Peeking(load_model(open_checkpoint(tiny_model("llama", tmp_path)), cpu))
    peeking, plain = Steps(model, cpu), Steps(model.inner, cpu, deaf)
    for _ in range(TRIES + 2):
        assert np.array_equal(peeking.step((0, 1, 1)), plain.step((0, 1, 1)))
    assert model.looked == TRIES + 2
    assert "looked at a value" in peeking.run.why
    assert not any(peeking.run._programs)


def test_an_error_while_recording_ends_the_recording(tmp_path: Path, cpu: Device) -> None:
    model = load_model(open_checkpoint(tiny_model("llama", tmp_path)), cpu)
    steps = Steps(model, cpu)
    whole = steps.run._verbs
    steps.run._verbs = lambda batch: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        steps.step((0, 2, 1))
    steps.run._verbs = whole  # type: ignore[method-assign]
    steps.kv.close(0)
    for _ in range(2):  # the first one makes the rope table, which cannot be noted
        assert steps.step((0, 2, 1)).shape == (1, VOCAB)
    assert steps.run._programs[2] is not None


def test_a_replay_checks_what_changes(tmp_path: Path, cpu: Device) -> None:
    model = load_model(open_checkpoint(tiny_model("llama", tmp_path)), cpu)
    steps = Steps(model, cpu)
    for _ in range(3):
        steps.step((0, 2, 1))
    program: Any = steps.run._programs[2]
    rows = [SeqRows(0, 0, 2, steps.kv.length(0))]
    steps.kv.reserve(0, 8)
    plan = steps.kv.begin(rows)
    good = np.array([1, 2], np.int32)

    def run(ids: Any = good, positions: Any = good, outputs: Any = good[:1], plan: Any = plan) -> Any:
        return program.run(cpu, ids, positions, outputs, plan)

    assert run().shape == (1, VOCAB)
    for wrong, message in (
        ({"ids": np.array([1, VOCAB], np.int32)}, f"token {VOCAB}"),
        ({"positions": np.array([0, 1 << 20], np.int32)}, "position"),
        ({"outputs": np.array([2], np.int32)}, "output"),
        ({"ids": np.array([1], np.int32)}, "same number of rows"),
        ({"plan": cpu.attn_plan([SeqRows(0, 0, 2, 0)], [np.array([900], np.int32)], 16)}, "pages"),
        ({"plan": cpu.attn_plan([SeqRows(0, 0, 2, 0)], [np.array([0], np.int32)], 32)}, "pages"),
    ):
        with pytest.raises(BadInput, match=message):
            run(**wrong)
