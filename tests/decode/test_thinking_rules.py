"""A thought's budget, and rules that wait for its end."""

from collections.abc import Sequence

import numpy as np

from edgewise.base import BadInput, SamplingParams, SeqId
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.decode.rules.afterwards import Afterwards
from edgewise.decode.rules.allowed import Allowed
from edgewise.decode.rules.thinking_budget import ThinkingBudget
from edgewise.kernels.api import Floats
from edgewise.testing.decode_contract import RuleContract

OPEN, CLOSE = 3, 4


def opened(tokens: Sequence[int]) -> bool:
    return tokens[-1] == OPEN


def closed(tokens: Sequence[int]) -> bool:
    return tokens[-1] == CLOSE


def budget(tokens: int, *, inside: bool) -> ThinkingBudget:
    return ThinkingBudget(tokens, (5, CLOSE), opened, closed, inside=inside)


class TestThinkingBudget(RuleContract):
    def make(self) -> LogitsRule:
        return budget(1, inside=True)


class TestAfterwards(RuleContract):
    def make(self) -> LogitsRule:
        return Afterwards(Allowed([4, 7]), closed)


def drawn(rule: LogitsRule, wanted: Sequence[int]) -> list[int]:
    """What comes out when the model wants these tokens, whatever was forced."""
    tokens = [0, 0]
    for token in wanted:
        row = np.zeros(8, np.float32)
        row[token] = 9
        tokens.append(int(rule.apply(SeqView(SeqId(0), tokens, 2, SamplingParams()), row).argmax()))
    return tokens[2:]


def test_a_budget_forces_the_end() -> None:
    assert drawn(budget(3, inside=True), [1] * 8) == [1, 1, 1, 5, CLOSE, 1, 1, 1]
    assert drawn(budget(0, inside=True), [1] * 4) == [5, CLOSE, 1, 1]
    assert drawn(budget(9, inside=True), [1] * 5) == [1] * 5


def test_it_counts_from_the_opening_tag() -> None:
    assert drawn(budget(2, inside=False), [1, OPEN, 1, 1, 1, 1, 1]) == [1, OPEN, 1, 1, 5, CLOSE, 1]
    assert drawn(budget(2, inside=False), [1] * 6) == [1] * 6


def test_a_thought_that_ends_by_itself_is_left_alone() -> None:
    wanted = [1, CLOSE, 1, 1, OPEN, 1, 1, 1, 1]
    assert drawn(budget(3, inside=True), wanted) == wanted


def test_drafts_that_are_taken_back_are_forgotten() -> None:
    rule = budget(2, inside=True)
    row = np.zeros(8, np.float32)
    rule.apply(SeqView(SeqId(0), [0, 1, CLOSE, 1, 1], 1, SamplingParams()), row.copy())
    after = rule.apply(SeqView(SeqId(0), [0, 1, 1], 1, SamplingParams()), row.copy())
    assert after.argmax() == 5


def test_a_rule_waits_for_the_end() -> None:
    rule = Afterwards(Allowed([6]), closed)
    assert drawn(rule, [1, 2, CLOSE, 1, 1]) == [1, 2, CLOSE, 6, 6]


def test_who_may_think_need_not() -> None:
    assert drawn(Afterwards(Allowed([6]), closed, [OPEN]), [6, 1, 1]) == [6, 6, 6]
    assert drawn(Afterwards(Allowed([6]), closed, [OPEN]), [OPEN, 1, CLOSE, 1]) == [OPEN, 1, CLOSE, 6]


class Never(Allowed):
    """A grammar of nothing but 6, which says so."""

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        if any(token != 6 for token in seq.tokens[seq.prompt_tokens :]):
            raise BadInput("left the grammar")
        return super().apply(seq, logits)


def test_a_tag_of_several_tokens_opens_a_thought_too() -> None:
    tag = [OPEN, 2, OPEN]
    assert drawn(Afterwards(Never([6]), closed, tag), [OPEN, 1, 1, 1, CLOSE, 1]) == [*tag, 1, CLOSE, 6]
    assert drawn(Afterwards(Never([6]), closed, tag), [6, 1, 1, OPEN]) == [6, 6, 6, 6]
    both = Afterwards(Allowed([6, OPEN]), closed, tag)  # the grammar knows what the tag begins with
    assert drawn(both, [OPEN, 6, 1, OPEN, 2]) == [OPEN, 6, OPEN, OPEN, OPEN]


def test_no_text_ends_inside_its_thought() -> None:
    assert drawn(Afterwards(Allowed([6, 0]), closed, ends=[0, 7]), [7, 1, CLOSE, 7]) == [1, 1, CLOSE, 0]
