"""Heads that draft: the contract, equality whatever they say, and what is refused."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Cap, Incompatible, SamplingParams, SeqId, Tap
from edgewise.decode.api import Accepted, SeqView, Speculator, Spent
from edgewise.decode.drafting_weights import read_tensors, widened, write_tensors
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.medusa import MedusaSpeculator
from edgewise.kernels.devices import DEVICES
from edgewise.kv.swap import SwapFile
from edgewise.testing.decode_contract import SpeculatorContract, toy_target
from edgewise.testing.tiny import write_safetensors
from edgewise.testing.toy import ToyModel

DIM, VOCAB = ToyModel.DIM, 61


INNER = 64  # of a root block


def heads_file(path: Path, heads: int = 3, own: Sequence[int] = (), root: bool = False, **instead: Any) -> Path:
    numbers = np.random.default_rng(4)
    tensors = {}
    for k in range(heads):
        tensors[f"{k}.0.linear.weight"] = numbers.standard_normal((DIM, DIM)).astype(np.float32) * 0.3
        tensors[f"{k}.0.linear.bias"] = numbers.standard_normal(DIM).astype(np.float32)
        if k in own:
            tensors[f"{k}.1.weight"] = numbers.standard_normal((VOCAB, DIM)).astype(np.float32)
    tensors["accuracy"] = np.linspace(0.6, 0.01, heads * 10, dtype=np.float32).reshape(heads, 10)
    if root:
        shapes = {"state.weight": (INNER, DIM), "token.weight": (INNER, DIM), "state.bias": (INNER,)}
        for name, shape in (shapes | {"out.weight": (DIM, INNER)}).items():
            tensors[f"root.{name}"] = numbers.standard_normal(shape).astype(np.float32) * 0.2
        tensors["chances"] = np.linspace(0.1, 0.8, heads * 160, dtype=np.float32).reshape(heads, 10, 16)
    write_safetensors(path, {**tensors, **instead})
    return path


class TestMedusa(SpeculatorContract):
    settings = ""

    @pytest.fixture(autouse=True)
    def _heads(self, tmp_path: Path) -> None:
        self.path = heads_file(tmp_path / "heads.safetensors", own=(1,))

    def make(self) -> Speculator:
        member: Speculator = SPECULATORS.build(f"medusa:heads={self.path},nodes=9{self.settings}")
        return member

    def test_some_guesses_come_true(self) -> None:
        """Or the tests above would compare nothing: 61 tokens, 9 guesses a step."""
        drafted, hits = self.counted(MedusaSpeculator(heads=str(self.path), nodes=9))
        assert drafted > 200
        assert hits > 3


class TestRooted(TestMedusa):
    """Heads that are told the newest token, and trees that are made of how sure they are."""

    @pytest.fixture(autouse=True)
    def _heads(self, tmp_path: Path) -> None:
        self.path = heads_file(tmp_path / "heads.safetensors", own=(1,), root=True)


@pytest.mark.usefixtures("cheap_rows")
class TestAsManyNodesAsPay(TestMedusa):
    def make(self) -> Speculator:
        member: Speculator = SPECULATORS.build(f"medusa:heads={self.path}")
        return member

    def test_some_guesses_come_true(self) -> None:
        drafted, _ = self.counted(self.make())
        assert drafted > 20  # until they are given up; where they come true: test_guessing.py

    def test_pages_swapped_out_and_back_change_nothing(self) -> None:
        swap = SwapFile()
        swap._rate = 1e15
        want = self.run(SPECULATORS.build("none"), "none")
        assert self.run(self.make(), self.verifier, pages=10, swap=swap) == want
        swap.close()


@pytest.mark.usefixtures("cheap_rows")
class TestAsManyNodesAsPayThisTime(TestAsManyNodesAsPay):
    @pytest.fixture(autouse=True)
    def _heads(self, tmp_path: Path) -> None:
        self.path = heads_file(tmp_path / "heads.safetensors", own=(1,), root=True)


@pytest.mark.usefixtures("cheap_rows")
class TestUnderAuto(TestMedusa):
    def make(self) -> Speculator:
        shutil.copy(self.path, "medusa.safetensors")
        member: Speculator = SPECULATORS.build("auto:members=ngram+suffix+medusa")
        assert member.taps == {Tap.STATES}
        assert Cap.TREE in member.needs
        return member

    @pytest.fixture(autouse=True)
    def _beside_the_target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the toy lies in "."

    def test_some_guesses_come_true(self) -> None:
        member: Any = self.make()
        drafted, hits = self.counted(member)
        assert drafted > 60
        assert hits > 0
        assert member._unit_s[2].value > 0  # the heads were asked, too


def test_auto_says_whose_weights_are_missing() -> None:
    with pytest.raises(BadInput, match=r"'auto': no medusa\. toy has no heads"):
        SPECULATORS.build("auto:members=ngram+medusa").prepare(toy_target(DEVICES.build("reference")))
    with pytest.raises(BadInput, match="medusa and streaming look at different states"):
        SPECULATORS.build("auto:members=medusa+streaming")


class TestCartesianInFloat(TestMedusa):
    settings = ",tree=3x2x1,dtype=f32,shuffle=5"


def prepared(path: Path, **settings: Any) -> MedusaSpeculator:
    member = MedusaSpeculator(heads=str(path), **settings)
    device = DEVICES.build("reference")
    assert member.prepare(toy_target(device)) > 0
    member.attach(ToyModel(device), None)  # type: ignore[arg-type]
    return member


@pytest.mark.parametrize("own", [(), (0, 2)])
def test_the_draft_is_what_the_heads_say(tmp_path: Path, own: tuple[int, ...]) -> None:
    path = heads_file(tmp_path / "h.safetensors", own=own)
    member = prepared(path, tree="2x1x2", dtype="f32")
    device = DEVICES.build("reference")
    model = ToyModel(device)
    states = np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32)
    numbers = np.random.default_rng(4)
    views = [SeqView(SeqId(i), [1, 2, 3], 1, SamplingParams()) for i in (7, 8)]
    for view in views:
        member.begin(view.seq, view.tokens)
    assert all(not draft.tokens for draft in member.propose(views, 99))  # nothing was seen yet
    member.accepted(
        [Accepted(SeqId(8), (1,), state=0), Accepted(SeqId(7), (1,), state=3), Accepted(SeqId(1), (1,), state=1)],
        Spent(0, 0, 1, 0, states),
    )
    first, second = member.propose(views, 99)
    best = []
    for k in range(3):
        weight = numbers.standard_normal((DIM, DIM)).astype(np.float32) * 0.3
        y = states @ weight.T + numbers.standard_normal(DIM).astype(np.float32)
        z = states + y / (1 + np.exp(-y))
        table = numbers.standard_normal((VOCAB, DIM)).astype(np.float32) if k in own else model.out.values
        best.append(np.argsort(-(z @ table.T), axis=1)[:, :2])
    for draft, row in ((first, 3), (second, 0)):
        a, b, c = (best[k][row] for k in range(3))
        assert draft.tokens == (a[0], a[1], b[0], b[0], c[0], c[1], c[0], c[1])
        assert draft.parents == (-1, -1, 0, 1, 2, 2, 3, 3)
    assert [len(draft.tokens) for draft in member.propose(views, 9)] == [8, 1]


def test_the_newest_token_is_mixed_into_what_heads_read(tmp_path: Path) -> None:
    path = heads_file(tmp_path / "h.safetensors", heads=1, root=True)
    tensors = read_tensors(path)[1]
    member, model = prepared(path, tree="2", dtype="f32"), ToyModel(DEVICES.build("reference"))
    state = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
    drafts = []
    for newest in (3, 9):
        seq = SeqId(newest)
        member.begin(seq, [])
        member.accepted([Accepted(seq, (newest,), state=0)], Spent(0, 0, 1, 0, state[None]))
        (draft,) = member.propose([SeqView(seq, [1, newest], 1, SamplingParams())], 99)
        inner = tensors["root.state.weight"] @ state + tensors["root.state.bias"]
        inner += tensors["root.token.weight"] @ model.table.values[newest]
        z = state + tensors["root.out.weight"] @ (inner / (1 + np.exp(-inner)))
        y = tensors["0.0.linear.weight"] @ z + tensors["0.0.linear.bias"]
        said = (z + y / (1 + np.exp(-y))) @ model.out.values.T
        assert draft.tokens == tuple(np.argsort(-said)[:2].tolist())
        drafts.append(draft.tokens)
    assert drafts[0] != drafts[1]


def test_bad_heads_are_refused_by_name(tmp_path: Path) -> None:
    target = toy_target(DEVICES.build("reference"))
    with pytest.raises(BadInput, match=r"has no heads.*edgewise train medusa"):
        MedusaSpeculator().prepare(target)
    wide = heads_file(tmp_path / "wide.safetensors", **{"1.0.linear.weight": np.zeros((64, 64), np.float32)})
    with pytest.raises(Incompatible, match=r"'1.0.linear.weight' has the shape \(64, 64\), but toy needs \(32, 32\)"):
        MedusaSpeculator(heads=str(wide)).prepare(target)
    nothing = tmp_path / "none.safetensors"
    write_safetensors(nothing, {"x": np.zeros((2, 2), np.float32)})
    with pytest.raises(BadInput, match=r"'0\.0\.linear\.weight' is missing"):
        MedusaSpeculator(heads=str(nothing)).prepare(target)
    odd = heads_file(tmp_path / "odd.safetensors", accuracy=np.full((3, 10), 2, np.float32))
    with pytest.raises(BadInput, match="'accuracy' must be the chances"):
        MedusaSpeculator(heads=str(odd)).prepare(target)
    broken = heads_file(tmp_path / "nan.safetensors", **{"0.0.linear.bias": np.full(DIM, np.nan, np.float32)})
    with pytest.raises(BadInput, match="not finite"):
        MedusaSpeculator(heads=str(broken)).prepare(target)
    half = heads_file(tmp_path / "half.safetensors", **{"root.state.bias": np.zeros(4, np.float32)})
    with pytest.raises(BadInput, match=r"the root block lacks 'root\.state\.weight'"):
        MedusaSpeculator(heads=str(half)).prepare(target)
    other = {"root.out.weight": np.zeros((DIM, 3), np.float32)}
    narrow = heads_file(tmp_path / "narrow.safetensors", root=True, **other)
    with pytest.raises(Incompatible, match=r"'root\.out\.weight' has the shape"):
        MedusaSpeculator(heads=str(narrow)).prepare(target)
    unsure = heads_file(tmp_path / "unsure.safetensors", chances=np.zeros((3, 10, 4), np.float32))
    with pytest.raises(BadInput, match="'chances' must be the chances"):
        MedusaSpeculator(heads=str(unsure)).prepare(target)
    good = heads_file(tmp_path / "good.safetensors")
    with pytest.raises(BadInput, match="may be 3 widths"):
        MedusaSpeculator(heads=str(good), tree="2x2x2x2").prepare(target)
    (tmp_path / "t.json").write_text("[[0, 0]]")
    with pytest.raises(BadInput, match="is no tree"):
        MedusaSpeculator(heads=str(good), tree=str(tmp_path / "t.json")).prepare(target)
    for nodes in (0, 2.5, "some"):
        with pytest.raises(BadInput, match="must be auto or an integer"):
            MedusaSpeculator(nodes=nodes)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="dtype='q9'"):
        MedusaSpeculator(dtype="q9")


@pytest.mark.parametrize("root", [False, True])
def test_widened_heads_say_the_same(tmp_path: Path, root: bool) -> None:
    """As `edgewise inflate` widens a model: copies of the stream, whose last norm gives each a share."""
    device = DEVICES.build("reference")
    narrow, wide = heads_file(tmp_path / "n.safetensors", root=root), tmp_path / "w.safetensors"
    write_tensors(wide, *reversed(widened(*read_tensors(narrow), 4)))

    class Target:
        def __init__(self, table: Any) -> None:
            self.table = table

        def logits(self, states: Any) -> Any:
            return states @ self.table.T

        def embed(self, batch: Any) -> Any:
            return 3 * self.table[batch.ids]

    table = np.random.default_rng(2).standard_normal((VOCAB, DIM)).astype(np.float32)
    state = np.random.default_rng(3).standard_normal((1, DIM)).astype(np.float32)
    said = []
    for path, times in ((narrow, 1), (wide, 4)):
        member = MedusaSpeculator(heads=str(path), dtype="f32")
        target = toy_target(device)
        member.prepare(replace(target, spec=replace(target.spec, dim=DIM * times)))
        member.attach(Target(np.tile(table, times)), None)  # type: ignore[arg-type]
        view = SeqView(SeqId(1), [5, 17], 1, SamplingParams())
        said.append(member._best([view], np.tile(state, times) / np.float32(times), 2))
    assert said[0][0].tolist() == said[1][0].tolist()
    assert np.allclose(said[0][1], said[1][1], atol=0.05)  # the wide file's numbers are rounded


@pytest.mark.native
@pytest.mark.parametrize("settings", [":nodes=12", ":nodes=20,tree=cartesian"])
def test_the_embedded_model_has_heads(settings: str) -> None:
    """Trained ones: more than one token a pass, and the text of plain decoding; with the kernels, recorded steps and
    all. The control is in the bench."""
    from edgewise.serve.llm import LLM

    params = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    prompts = ["def add(a, b):\n", 'class Reader:\n    """Reads', "import os\n", "for line in"]
    with LLM(threads=1) as llm:
        want = [one.outputs[0].token_ids for one in llm.generate(prompts, params)]
        plain = llm.parts.engine.steps
    with LLM(threads=1, speculator="medusa" + settings) as llm:
        found = llm.generate(prompts, params)
        steps = llm.parts.engine.steps
        assert [one.outputs[0].token_ids for one in found] == want
    assert steps < plain / 1.2
