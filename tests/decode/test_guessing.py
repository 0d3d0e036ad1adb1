"""Trees cut to what pays, under seconds made for the test: near the best fixed size, and off where none pays."""

from typing import Any, cast

import numpy as np
import pytest

from edgewise.base import SamplingParams, SeqId, StructuredOutputsParams
from edgewise.decode.api import Accepted, SeqView, Spent
from edgewise.decode.choices import expected, searched
from edgewise.decode.guessing import RankGuesses, guesses_of
from edgewise.decode.pacing import TRIES
from edgewise.kernels.api import Floats

RANKS = 0.5 ** np.arange(1, 11)
ACCURACY = np.stack([0.75 * 2 * RANKS, 0.55 * RANKS, 0.4 * RANKS, 0.3 * RANKS]).astype(np.float32)
ACCURACY[0] *= [0.8] + [0.35] * 9  # 0.6, 0.13, 0.07 ...


class Play:
    """Steps of a target whose tokens the heads say as often as `accuracy` and `factor` have it."""

    def __init__(self, batch: int = 1, draft_s: float = 0.0, nodes: int | str = "auto") -> None:
        self.guesses = guesses_of("a test", "searched", nodes, ACCURACY, None)
        self.views = [SeqView(SeqId(i), [1, 2, 3], 1, SamplingParams()) for i in range(batch)]
        for view in self.views:
            self.guesses.begin(view.seq)
        self.draft_s, self.dice = draft_s, np.random.default_rng(2)
        self.sizes: list[int] = []  # of each step, of the first sequence
        self.asked: list[bool] = []  # of each step, whether the heads had to say something
        self.shown: list[bool] = []

    def best(self, seqs: Any, states: Floats, depth: int) -> Any:
        self.asked[-1] = True
        return np.zeros((len(seqs), depth, 10), np.int64), np.zeros((len(seqs), depth, 10), np.float32)

    def steps(self, count: int, slope: float, factor: float = 1.0, prefill: int = 0) -> float:
        """Tokens a second, beside those of plain decoding."""
        guesses, batch, tokens, seconds = self.guesses, len(self.views), 0, 0.0
        tree = cast(RankGuesses, guesses).tree
        for _ in range(count):
            self.asked.append(False)
            drafts = guesses.drafts(self.views, 512, self.best)
            self.sizes.append(len(drafts[0].tokens))
            self.shown.append(guesses.listening)
            outcomes = []
            for i, (view, draft) in enumerate(zip(self.views, drafts, strict=True)):
                at, path = -1, []
                while True:  # which of this node's children is right, if any
                    dice, found = self.dice.random(), None
                    for node, parent in enumerate(draft.parents):
                        if parent == at:
                            dice -= factor * float(ACCURACY[tree.depths[node], tree.ranks[node]])
                            if dice < 0:
                                found = node
                                break
                    if found is None:
                        break
                    path.append(at := found)
                outcomes.append(Accepted(view.seq, (0,) * (len(path) + 1), tuple(path), (0,), i))
                tokens += len(path) + 1
            rows = batch + sum(len(draft.tokens) for draft in drafts)
            states = np.zeros((batch, 8), np.float32) if self.shown[-1] else None
            spent = Spent(self.draft_s * self.asked[-1], 1 + slope * (rows - 1), rows, prefill, states)
            guesses.heard(outcomes, spent, states)
            seconds += spent.pass_s + spent.draft_s
        return tokens / seconds / batch * (1 + slope * (batch - 1))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("slope", [0.01, 0.05, 0.1, 0.2])
def test_the_size_is_near_the_best_there_is(slope: float, batch: int) -> None:
    play = Play(batch, draft_s=0.02)
    play.steps(60, slope)
    got = play.steps(600, slope)
    rates = []
    for nodes in range(1, 25):
        made, rows = 1 + expected(searched(ACCURACY, nodes), ACCURACY), batch * (nodes + 1)
        rates.append(made / (1.02 + slope * (rows - 1)) * (1 + slope * (batch - 1)))
    assert got > 0.93 * max(1.0, *rates)
    assert max(rates) > 1.05


def test_cheap_rows_get_more_nodes_than_dear_ones() -> None:
    sizes = []
    for slope in (0.01, 0.25):
        play = Play()
        play.steps(300, slope)
        sizes.append(float(np.median(play.sizes[60:])))
    assert sizes[0] > 3 * sizes[1] > 0


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize(("slope", "factor", "draft_s"), [(0.05, 0.0, 0.05), (1.0, 0.0, 0.05), (1.0, 1.0, 0.0),
                                                          (0.05, 1.0, 3.0)])  # fmt: skip
def test_where_nothing_pays_the_heads_rest(slope: float, factor: float, draft_s: float, batch: int) -> None:
    """Heads that say other tokens, rows as dear as passes, heads that are slow."""
    play = Play(batch, draft_s)
    assert play.steps(600, slope, factor) > 0.95
    assert 0 < sum(play.asked) < 60
    late = slice(300, 600)
    assert sum(play.asked[late]) <= TRIES * batch
    assert sum(play.shown[late]) <= 6 * batch  # nobody looks into passes either


def test_they_are_tried_again_and_come_back() -> None:
    play = Play()
    play.steps(100, 0.05, factor=0.0)
    assert sum(play.asked[60:]) <= TRIES
    play.steps(2000, 0.05)
    assert sum(play.asked[-200:]) > 150


def test_sizes_are_measured_from_the_smallest_on() -> None:
    play = Play()
    play.steps(40, 0.02)
    drafted = [size for size in play.sizes if size]
    assert drafted[:8] == [1, 1, 3, 3, 7, 7, 15, 15]
    dear = Play()
    dear.steps(25, 0.8)
    assert max(dear.sizes) <= 3


def test_a_number_of_nodes_is_what_it_says() -> None:
    play = Play(nodes=5)
    play.steps(40, 1.0, factor=0.0)
    assert play.sizes == [0] + [5] * 39  # the first step has nothing to start from
    assert all(play.shown)


class Moods:
    """Heads that are sure of all their tokens in one step of three, and then right; in the others they are neither."""

    SURE, UNSURE = 0.9, 0.08

    def __init__(self, tree: str, nodes: int | str = "auto") -> None:
        given = (self.SURE + 2 * self.UNSURE) / 3
        accuracy = np.full((4, 10), 0.01, np.float32)
        accuracy[:, 0] = given
        chances = np.full((4, 10, 16), 0.01, np.float32)
        chances[:, 0] = 1 / (1 + np.exp(7.5 - np.arange(16)))
        self.guesses = guesses_of("a test", tree, nodes, accuracy, chances)
        self.view = SeqView(SeqId(1), [1, 2, 3], 1, SamplingParams())
        self.guesses.begin(self.view.seq)
        self.dice = np.random.default_rng(2)
        self.sizes: dict[float, list[int]] = {self.SURE: [], self.UNSURE: []}

    def steps(self, count: int, slope: float, draft_s: float, factor: float = 1.0) -> float:
        """Tokens a second, beside those of plain decoding."""
        made = seconds = 0.0
        for _ in range(count):
            mood, asked = (self.SURE if self.dice.random() < 1 / 3 else self.UNSURE), []

            def best(seqs: Any, states: Floats, depth: int, mood: float = mood, asked: Any = asked) -> Any:
                asked.append(True)
                sure = np.full((1, depth, 10), 0.001, np.float32)
                sure[:, :, 0] = mood
                return np.arange(10 * depth).reshape(1, depth, 10), sure

            (draft,) = self.guesses.drafts([self.view], 512, best)
            shown, at, path = self.guesses.listening, -1, []
            while self.dice.random() < factor * mood:
                found = [n for n, parent in enumerate(draft.parents) if parent == at and draft.tokens[n] % 10 == 0]
                if not found:
                    break
                path.append(at := found[0])
            if asked:
                self.sizes[mood].append(len(draft.tokens))
            rows, states = 1 + len(draft.tokens), np.zeros((1, 8), np.float32) if shown else None
            spent = Spent(draft_s * bool(asked), 1 + slope * (rows - 1), rows, 0, states)
            self.guesses.heard([Accepted(self.view.seq, (0,) * (len(path) + 1), tuple(path), (), 0)], spent, states)
            made, seconds = made + 1 + len(path), seconds + spent.pass_s + spent.draft_s
        return made / seconds


def test_a_dynamic_tree_has_nodes_where_heads_are_sure() -> None:
    slope, draft_s = 0.2, 0.05
    play, fixed = Moods("dynamic"), Moods("searched")
    got, other = (one.steps(900, slope, draft_s) for one in (play, fixed))
    assert got > 1.2 > 1.05 * other
    assert got > 1.1 * other
    assert np.median(play.sizes[Moods.SURE]) == 4
    assert np.median(play.sizes[Moods.UNSURE]) == 0


@pytest.mark.parametrize(("slope", "draft_s", "factor"), [(0.2, 0.05, 0.0), (1.5, 0.05, 1.0), (0.1, 3.0, 1.0)])
def test_where_dynamic_trees_do_not_pay_the_heads_rest(slope: float, draft_s: float, factor: float) -> None:
    play = Moods("dynamic")
    assert play.steps(900, slope, draft_s, factor) > 0.95
    before = sum(map(len, play.sizes.values()))
    play.steps(300, slope, draft_s, factor)
    assert sum(map(len, play.sizes.values())) - before <= 3 * TRIES


def test_dynamic_trees_are_tried_again_and_come_back() -> None:
    play = Moods("dynamic")
    play.steps(100, 0.1, 0.05, 0.0)
    play.steps(2000, 0.1, 0.05)
    before = sum(map(len, play.sizes.values()))
    play.steps(200, 0.1, 0.05)
    assert sum(map(len, play.sizes.values())) - before > 150


def test_a_number_of_nodes_of_a_dynamic_tree_is_what_it_says() -> None:
    play = Moods("dynamic", 5)
    play.steps(40, 1.0, 0.0, 0.0)
    assert set(play.sizes[Moods.SURE] + play.sizes[Moods.UNSURE]) == {5}
    assert isinstance(guesses_of("a test", "dynamic", "auto", ACCURACY, None), RankGuesses)


def test_other_trees_are_not_cut() -> None:
    assert guesses_of("a test", "2x2", "auto", ACCURACY, None).pace is None
    assert len(guesses_of("a test", "cartesian", "auto", ACCURACY, None).likely.parents) <= 12


def test_while_prompts_are_read_nothing_is_learnt_of_passes() -> None:
    play = Play()
    play.steps(30, 0.1, prefill=1)
    assert not play.guesses.pace or not play.guesses.pace.curve.points
    assert not any(play.asked)


@pytest.mark.native
@pytest.mark.usefixtures("cheap_rows")
@pytest.mark.parametrize("speculator", ["medusa", "streaming", "auto:members=ngram+medusa"])
def test_the_embedded_model_says_the_same(speculator: str) -> None:
    """Under a batch, prompts in chunks, sampling, penalties and a grammar, with trees of all sizes."""
    pytest.importorskip("edgewise._native")
    pytest.importorskip("llguidance")
    from edgewise.serve.llm import LLM

    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": ["one", "two"]}}}}
    texts = ["def add(a, b):\n", "import os\n" * 9, "The file is read line by line, and", '{"a": ["one", "two"]}\n'] * 2
    greedy = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    seeded = SamplingParams(temperature=0.7, seed=5, max_tokens=24, ignore_eos=True, repetition_penalty=1.1)
    held = SamplingParams(temperature=0, max_tokens=48, structured_outputs=StructuredOutputsParams(json=schema))
    params = [greedy, greedy, greedy, held, seeded, seeded, seeded, held]
    found, steps = [], []
    for name in ("none", speculator):
        with LLM(threads=1, max_num_seqs=8, ctx_size=256, prefill_chunk=24, speculator=name) as llm:
            found.append([one.outputs[0].token_ids for one in llm.generate(texts, params)])
            steps.append(llm.parts.engine.steps)
    assert found[0] == found[1]
    assert steps[1] < 0.9 * steps[0]
