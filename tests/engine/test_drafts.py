"""The loop under speculation: whatever is drafted, greedy output is what it is without. Members made for the test."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from edgewise.base import Cap, Incompatible, Request, SamplingParams, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, LogitsRule, SeqView, Spent, Target
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import StepCost, Work
from edgewise.engine.loop import Engine
from edgewise.engine.policies.fcfs import FirstComeFirstServed
from edgewise.engine.runners.text import TextRunner
from edgewise.engine.trees import within
from edgewise.kernels.api import Device, Floats
from edgewise.kernels.devices.reference import ReferenceDevice
from edgewise.kv.swap import SwapFile
from edgewise.testing.toy import ToyModel


class Guesser:
    """Drafts what was true in an earlier run, with mistakes; keeps books on what the loop tells it."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(self, truth: dict[int, list[int]], length: int, wrong: float) -> None:
        self.truth, self.length, self.wrong = truth, length, wrong
        self.numbers = np.random.default_rng(1)
        self.open: set[int] = set()
        self.kept = 0

    def prepare(self, target: Target) -> int:
        return 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        assert seq not in self.open
        self.open.add(seq)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        drafts = []
        for view in seqs:
            assert view.seq in self.open
            now = len(view.tokens) - view.prompt_tokens
            guess = self.truth[view.seq][now : now + min(self.length, max(0, budget))]
            guess = [(t + 1) % 61 if self.numbers.random() < self.wrong else t for t in guess]
            budget -= len(guess)
            drafts.append(Draft(tuple(guess), tuple(range(-1, len(guess) - 1))))
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        self.kept += sum(len(outcome.tokens) - 1 for outcome in outcomes)

    def end(self, seq: SeqId) -> None:
        self.open.remove(seq)


class GreedyChain:
    odds: ClassVar[bool] = False
    """Keeps drafted tokens as long as each is the likeliest, then adds one of its own."""

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        assert list(best) == logits.argmax(axis=1).tolist()
        keep = 0
        while keep < len(draft.tokens) and draft.tokens[keep] == best[keep]:
            keep += 1
        return Accepted(view.seq, tuple(best[: keep + 1]), tuple(range(keep)), tuple(range(keep + 1)))


class Failing(TextRunner):
    """Every few passes of several sequences, or of a tree, come to nothing after the work was done."""

    fails, passes = 0, 0

    def step(self, work: Sequence[Work]) -> Floats:
        logits = super().step(work)
        self.passes += 1
        if self.fails and self.passes % self.fails == 0 and (len(work) > 1 or work[0].branches):
            raise RuntimeError("as if")
        return logits


def run(
    speculator: Any, pages: int = 64, device: Device | None = None, verifier: Any = None, fails: int = 0,
    loops: list[Engine] | None = None, dtype: str = "f32", **options: Any,
) -> dict[int, tuple[list[int], list[Any], str]]:
    model = ToyModel(device or ReferenceDevice())
    kv = model.cache(pages, dtype=dtype)
    runner = Failing(model, kv, model.device)
    runner.fails = fails
    loop = Engine(
        runner, kv, FirstComeFirstServed(), speculator, verifier or GreedyChain(),
        vocab=61, context=128, ends={7}, **options,
    )  # fmt: skip
    if loops is not None:
        loops.append(loop)
        kv.pages.reuse = False  # or pages would be found where they were left
    for at in range(4):
        prompt = tuple(np.random.default_rng(at).integers(0, 61, 5 + 9 * at).tolist())
        loop.add(Request(prompt, SamplingParams(temperature=0, max_tokens=40 + at, logprobs=1), f"{at}"))
    got: dict[int, tuple[list[int], list[Any], str]] = {at: ([], [], "") for at in range(4)}
    while loop.has_work():
        for event in loop.step():
            tokens, logprobs, _ = got[int(event.request_id)]
            got[int(event.request_id)] = (
                tokens + list(event.tokens), logprobs + list(event.logprobs), event.finish_reason or ""
            )  # fmt: skip
    assert kv.free_tokens() == loop.capacity
    return got


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("length", "pages", "rows"), [(1, 64, 512), (4, 64, 512), (6, 10, 512), (5, 64, 9)])
def test_drafts_change_no_token_and_no_logprob(wrong: float, length: int, pages: int, rows: int) -> None:
    want = run(SPECULATORS.build("none"))
    guesser = Guesser({at: tokens for at, (tokens, _, _) in want.items()}, length, wrong)
    assert run(guesser, pages, rows=rows) == want
    assert not guesser.open
    assert (guesser.kept > 0) == (wrong < 1)


class TreeGuesser(Guesser):
    """Several branches: the truth, sometimes with a mistake, at a random place among wrong siblings."""

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        drafts = []
        for chain in super().propose(seqs, budget):
            tokens: list[int] = []
            parents: list[int] = []
            parent = -1
            for token in chain.tokens:
                others = [(token + 1 + at) % 61 for at in range(int(self.numbers.integers(0, 3)))]
                place = int(self.numbers.integers(0, len(others) + 1))
                siblings = [*others[:place], token, *others[place:]]
                first = len(tokens)
                tokens += siblings
                parents += [parent] * len(siblings)
                if others:  # a wrong branch goes on
                    tokens.append(token)
                    parents.append(first + (place == 0))
                parent = first + place
            drafts.append(Draft(tuple(tokens), tuple(parents)))
        return drafts


@pytest.mark.parametrize("dtype", ["f32", "int8"])  # of int8 the scales must come along into every branch
@pytest.mark.parametrize("wrong", [0.0, 0.3])
@pytest.mark.parametrize(("length", "pages", "rows"), [(1, 64, 512), (4, 64, 512), (4, 14, 512), (3, 64, 40)])
def test_trees_change_no_token_and_no_logprob(
    wrong: float, length: int, pages: int, rows: int, dtype: str, device: Device
) -> None:
    want = run(SPECULATORS.build("none"), device=device, dtype=dtype)
    guesser = TreeGuesser({at: tokens for at, (tokens, _, _) in want.items()}, length, wrong)
    match = VERIFIERS.build("match", sampler=SAMPLERS.build("greedy"))
    assert run(guesser, pages, device, match, rows=rows, dtype=dtype) == want
    assert not guesser.open
    assert guesser.kept > 20
    assert dtype == "f32" or want != run(SPECULATORS.build("none"), device=device)


def test_a_tree_without_room_loses_its_last_branches_first() -> None:
    #        0  1   2  3  4   5   6: two branches of three and two nodes, two more of one
    parents = (-1, 0, -1, 1, 2, -1, -1)
    draft = Draft(tuple(range(7)), parents)
    assert within(draft, cached=20, page=16, pages=4) is draft
    assert within(draft, cached=20, page=16, pages=3).tokens == (0, 1, 2, 3, 4, 5)
    assert within(draft, cached=20, page=16, pages=2).tokens == (0, 1, 2, 3, 4)  # who goes on takes no room
    assert within(draft, cached=20, page=16, pages=1).parents == (-1, 0, 1)
    assert within(draft, cached=20, page=16, pages=0) == Draft()
    # the next token is the page's last one: each node takes a page, and two of its branches one for the shared tail
    assert within(draft, cached=15, page=16, pages=6).tokens == (0, 1, 2, 3, 4, 5)
    assert within(draft, cached=16, page=16, pages=2).tokens == (0, 1, 2, 3, 4)


def test_a_pass_that_fails_with_a_tree_is_done_again_without(device: Device) -> None:
    want = run(SPECULATORS.build("none"), device=device)
    guesser = TreeGuesser({at: tokens for at, (tokens, _, _) in want.items()}, 3, 0.2)
    match = VERIFIERS.build("match", sampler=SAMPLERS.build("greedy"))
    assert run(guesser, 64, device, match, fails=5) == want


@pytest.mark.parametrize("made", [Guesser, TreeGuesser])
def test_pages_swapped_out_and_back_change_nothing(made: type[Guesser]) -> None:
    want = run(SPECULATORS.build("none"))
    swap = SwapFile()
    swap._rate = 1e15
    guesser = made({at: tokens for at, (tokens, _, _) in want.items()}, 3, 0.2)
    loops: list[Engine] = []
    match = VERIFIERS.build("match", sampler=SAMPLERS.build("greedy"))
    assert run(guesser, 8, None, match, loops=loops, swap=swap, cost=StepCost(1.0, 1.0, 1.0)) == want
    assert loops[0].swapped_in > 0
    assert guesser.kept > 0
    swap.close()


@pytest.mark.parametrize(("tokens", "parents"), [((1, 2), (-1, 1)), ((1, 2), (0, -1)), ((1, 2), (-1,)), ((1,), (-2,))])
def test_a_tree_that_is_none_is_refused(tokens: tuple[int, ...], parents: tuple[int, ...]) -> None:
    class Broken(Guesser):
        def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
            return [Draft(tokens, parents) for _ in seqs]

    with pytest.raises(Incompatible, match="no tree"):
        run(Broken({}, 2, 0.0))
