"""Streams that draft: the contract, what they say, that they leave nothing behind, and what is refused."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, Incompatible, SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Speculator, Spent
from edgewise.decode.drafting_weights import companions, read_tensors, widened, write_tensors
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.streaming import StreamingSpeculator
from edgewise.kernels.api import SeqRows
from edgewise.kernels.devices import DEVICES
from edgewise.models.api import Batch
from edgewise.testing.decode_contract import SpeculatorContract, toy_target
from edgewise.testing.toy import ToyModel

DIM = ToyModel.DIM


def streams_file(path: Path, rank: int = 0, layers: str = "1", **instead: Any) -> Path:
    numbers = np.random.default_rng(7)
    tensors: dict[str, Any] = {"embed": numbers.standard_normal((3, DIM))}
    if rank:
        tensors["down"], tensors["up"] = (numbers.standard_normal(s) for s in ((3, rank, DIM), (3, DIM, rank)))
    tensors["accuracy"] = np.linspace(0.6, 0.01, 30).reshape(3, 10)
    write_tensors(path, {**tensors, **instead}, {"layers": layers})
    return path


class TestStreaming(SpeculatorContract):
    rank = 0

    @pytest.fixture(autouse=True)
    def _streams(self, tmp_path: Path) -> None:
        self.path = streams_file(tmp_path / "s.safetensors", self.rank)

    def make(self) -> Speculator:
        member: Speculator = SPECULATORS.build(f"streaming:streams={self.path},nodes=9")
        return member

    def test_some_guesses_come_true(self) -> None:
        drafted, hits = self.counted(StreamingSpeculator(streams=str(self.path), nodes=9))
        assert drafted > 200
        assert hits > 3


@pytest.mark.usefixtures("cheap_rows")
class TestAsManyNodesAsPay(TestStreaming):
    def make(self) -> Speculator:
        member: Speculator = SPECULATORS.build(f"streaming:streams={self.path}")
        return member

    def test_some_guesses_come_true(self) -> None:
        drafted, _ = self.counted(self.make())
        assert drafted > 20  # until they are given up; where they come true: test_guessing.py


class TestStreamingOfLowRank(TestStreaming):
    rank = 4


KNOWN = {"token_down": np.eye(4, DIM), "token_up": 2 * np.eye(DIM, 4)}


class TestStreamsThatKnowTheNewestToken(TestStreaming):
    """And whose trees are made of how sure they are."""

    @pytest.fixture(autouse=True)
    def _streams(self, tmp_path: Path) -> None:
        chances = np.linspace(0.1, 0.8, 480).reshape(3, 10, 16)
        self.path = streams_file(tmp_path / "s.safetensors", chances=chances, **KNOWN)


EARLY = {"early_down": np.eye(2, DIM), "early_up": np.zeros((DIM, 2))}


class TestPruned(TestStreaming):
    """Nodes that seem unlikely below the top layer are left out there. A bad judge, here, but no text differs."""

    @pytest.fixture(autouse=True)
    def _streams(self, tmp_path: Path) -> None:
        self.path = streams_file(tmp_path / "s.safetensors", **EARLY)

    def make(self) -> Speculator:
        return StreamingSpeculator(streams=str(self.path), nodes=9, prune=0.02)

    def test_some_are_pruned_and_some_of_the_others_come_true(self) -> None:
        member = self.make()
        drafted, hits = self.counted(member)
        assert isinstance(member, StreamingSpeculator)
        assert 0.8 * drafted < member.nodes_seen <= drafted  # what would go beyond the end of a text is cut before
        assert 0.2 * drafted < member.nodes_pruned < 0.9 * drafted
        assert hits > 0


@pytest.mark.parametrize(("tree", "least"), [("1x1x1", 0.01), ("searched", 0.999)])
def test_of_chains_the_end_is_pruned_and_all_may_be(tmp_path: Path, tree: str, least: float) -> None:
    path, contract = streams_file(tmp_path / "s.safetensors", **EARLY), SpeculatorContract()
    member = StreamingSpeculator(streams=str(path), tree=tree, nodes=9, prune=least)
    assert contract.run(member, "match") == contract.run(SPECULATORS.build("none"), "none")
    assert member.nodes_seen > 100
    assert 0.2 < member.nodes_pruned / member.nodes_seen <= (1 if least > 0.9 else 0.9)


def test_pruning_goes_by_the_chance_that_the_early_exit_gives(tmp_path: Path) -> None:
    device = DEVICES.build("reference")
    model = ToyModel(device)
    numbers = np.random.default_rng(3)
    down, up = numbers.standard_normal((2, DIM)), numbers.standard_normal((DIM, 2))
    path = streams_file(tmp_path / "s.safetensors", early_down=down, early_up=up)
    member = StreamingSpeculator(streams=str(path), prune=0.05)
    member.prepare(toy_target(device))
    member.attach(model, model.cache())
    states = numbers.standard_normal((7, DIM)).astype(np.float32)  # of two drafts: a root and 3 nodes, a root and 2
    early = states + states @ down.T @ up.T
    logits = model.logits(model.states(early.astype(np.float32)))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    likely, unlikely = odds.argmax(1).tolist(), odds.argmin(1).tolist()
    assert odds.max(1).min() > 0.05 > odds.min(1).max()
    drafts = [
        Draft((unlikely[0], likely[0], likely[1]), (-1, -1, 0)),  # the last one's parent goes
        Draft((likely[4], unlikely[5]), (-1, 0)),
    ]
    assert [list(some) for some in member.prune(drafts, states)] == [[1], [0]]
    assert (member.nodes_seen, member.nodes_pruned) == (5, 3)


@pytest.mark.parametrize("known", [False, True])
def test_the_draft_is_what_the_streams_say(tmp_path: Path, known: bool) -> None:
    """Beside a pass of a model to whose top layer the streams are ordinary rows."""
    device = DEVICES.build("reference")
    model = ToyModel(device)
    kv = model.cache()
    path = streams_file(tmp_path / "s.safetensors", **(KNOWN if known else {}))
    member = StreamingSpeculator(streams=str(path), tree="2x1x1")
    member.prepare(toy_target(device))
    member.attach(model, kv)
    tokens, seq = [5, 9, 3, 7, 7, 1], SeqId(3)
    member.begin(seq, tokens)
    kv.open(seq, ())
    kv.reserve(seq, 5)
    seen: dict[int, Any] = {}
    rows = (SeqRows(3, 0, 5, 0),)
    ids, places = np.array(tokens[:5], np.int32), np.arange(5, dtype=np.int32)
    batch = Batch(ids, places, rows, places, kv, kv.begin(rows), lambda tap, layer, x: seen.update({layer: x.copy()}))
    model.blocks(model.embed(batch), batch, range(2))
    kv.commit(rows)
    free = kv.free_tokens()
    member.accepted([Accepted(seq, (1,), state=4)], Spent(0, 0, 1, 0, seen[0]))
    view = SeqView(seq, tokens, 3, SamplingParams())
    (draft,) = member.propose([view], 99)
    assert draft == member.propose([view], 99)[0]  # nothing was left behind
    assert kv.length(seq) == 5
    kv.rewind(seq, 5)
    assert kv.free_tokens() >= free - 16
    begin = seen[0][4].copy()
    begin[:4] += 2 * known * model.table.values[1, :4]  # of the newest token
    x = np.concatenate([seen[0], begin + read_tensors(path)[1]["embed"]])
    q, k, v = (x @ w.values.T for w in model.projections[1][:3])
    out = np.empty_like(x)
    for row in range(8):
        for head in range(2):
            score = (k[: row + 1] @ q[row, 16 * head : 16 * head + 16]) * 0.25
            weight = np.exp(score - score.max())
            out[row, 16 * head : 16 * head + 16] = weight @ v[: row + 1] / weight.sum()
    logits = (out @ model.projections[1][3].values.T + x)[5:] @ model.out.values.T
    first, second, third = np.argsort(-logits, axis=1)
    assert draft.tokens == (first[0], first[1], second[0], second[0], third[0], third[0])
    assert draft.parents == (-1, -1, 0, 1, 2, 3)


def test_bad_streams_are_refused_by_name(tmp_path: Path) -> None:
    target = toy_target(DEVICES.build("reference"))
    with pytest.raises(BadInput, match="edgewise train streaming"):
        StreamingSpeculator().prepare(target)

    def refused(kind: type[Exception], words: str, **settings: Any) -> None:
        path = streams_file(tmp_path / "s.safetensors", **settings)
        with pytest.raises(kind, match=words):
            StreamingSpeculator(streams=str(path)).prepare(target)

    refused(Incompatible, r"'embed' has the shape \(3, 64\)", embed=np.zeros((3, 64)))
    refused(Incompatible, r"'up' has the shape", rank=2, up=np.zeros((3, DIM, 1)))
    refused(Incompatible, "top 2 layers, but toy has 2", layers="2")
    refused(BadInput, "number of layers is missing", layers="many")
    refused(BadInput, "the tokens' matrix lacks 'token_up'", token_down=np.eye(4, DIM))
    refused(Incompatible, "'token_up' has the shape", token_down=np.eye(4, DIM), token_up=np.eye(4, DIM))
    with pytest.raises(BadInput, match="prune=1 must be a chance"):
        StreamingSpeculator(prune=1)
    with pytest.raises(BadInput, match="cannot prune: the early exit is missing"):
        StreamingSpeculator(streams=str(streams_file(tmp_path / "s.safetensors")), prune=0.1).prepare(target)
    refused(BadInput, "'accuracy' must be", accuracy=np.full((3, 10), 2))


def test_weights_are_written_read_and_found_by_name(tmp_path: Path) -> None:
    model = tmp_path / "a.b.gguf"
    path = tmp_path / "a.b.what.safetensors"
    write_tensors(path, {"embed": np.eye(4, 8), "accuracy": np.full((4, 10), 0.3)}, {"scale": "1"})
    (tmp_path / "a.other.what.safetensors").touch()
    assert companions(model) == [("what", path)]
    metadata, tensors = read_tensors(path)
    assert np.array_equal(tensors["embed"], np.eye(4, 8))
    assert np.allclose(tensors["accuracy"], 0.3)
    about, wide = widened(metadata, tensors, 2)
    assert about["scale"] == "0.5"
    assert wide["embed"].shape == (4, 16)
    assert wide["accuracy"].shape == (4, 10)
    with pytest.raises(BadInput, match="'odd' is not known"):
        widened(metadata, {"odd": np.zeros(3)}, 2)
    head = json.dumps({"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(BadInput, match="'x' is I64"):
        read_tensors(path)


@pytest.mark.native
def test_the_embedded_model_has_streams() -> None:
    from edgewise.serve.llm import LLM

    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    prompts = ["def add(a, b):\n", "import os\n", "for line in"]
    with LLM(threads=1) as llm:
        want = [one.outputs[0].token_ids for one in llm.generate(prompts, params)]
        plain = llm.parts.engine.steps
    with LLM(threads=1, speculator="streaming:nodes=12") as llm:
        assert [one.outputs[0].token_ids for one in llm.generate(prompts, params)] == want
        assert llm.parts.engine.steps < plain / 1.1
    with LLM(threads=1, speculator="streaming:nodes=24,prune=0.003") as llm:
        assert [one.outputs[0].token_ids for one in llm.generate(prompts, params)] == want
        assert llm.parts.engine.steps < plain / 1.1
