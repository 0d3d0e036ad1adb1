"""The loop under speculation: whatever is drafted, greedy output is what it is without. Members made for the test."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from edgewise.base import Cap, Incompatible, Request, SamplingParams, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, LogitsRule, SeqView, Spent, Target
from edgewise.decode.speculators import SPECULATORS
from edgewise.engine.loop import Engine
from edgewise.engine.policies.fcfs import FirstComeFirstServed
from edgewise.engine.runners.text import TextRunner
from edgewise.kernels.api import Floats
from edgewise.kernels.devices.reference import ReferenceDevice
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


def run(speculator: Any, pages: int = 64, **options: Any) -> dict[int, tuple[list[int], list[Any], str]]:
    model = ToyModel(ReferenceDevice())
    kv = model.cache(pages)
    loop = Engine(
        TextRunner(model, kv, model.device), kv, FirstComeFirstServed(), speculator, GreedyChain(),
        vocab=61, context=128, ends={7}, **options,
    )  # fmt: skip
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


def test_a_tree_is_refused() -> None:
    class Tree(Guesser):
        def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
            return [Draft((1, 2), (-1, -1)) for _ in seqs]

    with pytest.raises(Incompatible, match="tree"):
        run(Tree({}, 2, 0.0))
