"""What the drafting members draft, and that their indexes are what they say."""

import random
from collections.abc import Sequence

import pytest

from edgewise.base import BadInput, SamplingParams, SeqId
from edgewise.decode.api import SeqView, Speculator
from edgewise.decode.automaton import ROOT, SuffixAutomaton
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.ngram import NgramSpeculator
from edgewise.decode.speculators.suffix import SuffixSpeculator

A, B, C, D, E, F, X, Y = range(10, 18)


def draft(member: Speculator, tokens: Sequence[int], most: int = 1 << 30, prompt: int | None = None) -> list[int]:
    """The chain that a fresh sequence of these tokens gets."""
    seq = SeqId(0)
    view = SeqView(seq, list(tokens), len(tokens) if prompt is None else prompt, SamplingParams(), most=most)
    member.begin(seq, view.tokens)
    (found,) = member.propose([view], 1000)
    member.end(seq)
    assert found.parents == tuple(range(-1, len(found.tokens) - 1))
    return list(found.tokens)


def test_ngram_takes_the_longest_match_and_among_equals_the_latest() -> None:
    member = NgramSpeculator(n=2, depth=2)
    assert draft(member, [A, B, C, D, X, B, C, E, A, B, C]) == [D, X]
    assert draft(member, [B, C, D, X, B, C, E, Y, B, C]) == [E, Y]
    assert draft(member, [A, B, C]) == []
    assert draft(member, [A, B]) == []
    assert draft(member, [A]) == []


@pytest.mark.parametrize("name", ["ngram:n=2,depth=7", "suffix:n=2,depth=7,alpha=9"])
def test_a_text_that_repeats_itself_is_continued_past_its_end(name: str) -> None:
    member = SPECULATORS.build(name)
    assert draft(member, [A, B, C] * 4) == [A, B, C, A, B, C, A]
    assert draft(member, [A] * 9) == [A] * 7
    assert draft(member, [A, B, C] * 4, most=2) == [A, B]


def test_ngram_grown_is_ngram_made_anew() -> None:
    numbers = random.Random(3)
    tokens: list[int] = []
    grown = NgramSpeculator(n=2, depth=4)
    grown.begin(SeqId(0), tokens)
    view = SeqView(SeqId(0), tokens, 0, SamplingParams())
    for _ in range(200):
        tokens += [numbers.randrange(5) for _ in range(numbers.randrange(1, 4))]
        (found,) = grown.propose([view], 100)
        assert list(found.tokens) == draft(NgramSpeculator(n=2, depth=4), tokens)


def test_suffix_prefers_what_came_more_often() -> None:
    member = SuffixSpeculator(n=2, depth=3, alpha=3, least=0.0)
    assert draft(member, [A, B, C, X, A, B, D, X, A, B, C, Y, A, B])[0] == C
    assert draft(SuffixSpeculator(n=2, depth=8, alpha=1), [A, B, C, D, E, F, X, A, B]) == [C, D]  # as long as the match
    assert draft(SuffixSpeculator(n=3), [A, B, C, D, E, F, X, A, B]) == []


def test_suffix_remembers_past_outputs_but_no_prompts() -> None:
    member = SuffixSpeculator(n=2, depth=4, alpha=2)
    tokens = [X, Y, X, C, A, B, C, D, E]
    member.begin(SeqId(5), tokens[:4])
    view = SeqView(SeqId(5), tokens, 4, SamplingParams())
    texts = member._texts[SeqId(5)]
    texts.tokens = tokens  # as the engine's list would have grown
    member.propose([view], 9)
    member.end(SeqId(5))
    assert draft(member, [F, A, B]) == [C, D, E]
    assert draft(member, [F, X, Y]) == []


def test_suffix_is_bounded() -> None:
    member = SuffixSpeculator(n=2, room=64)
    numbers = random.Random(1)
    for at in range(30):
        tokens = [numbers.randrange(9) for _ in range(50)]
        draft(member, tokens, prompt=10)
        assert member._young.tokens <= 32, at
        assert member._old.tokens <= 32
    member.begin(SeqId(1), tokens)
    tokens += [numbers.randrange(9) for _ in range(500)]
    member.propose([SeqView(SeqId(1), tokens, 50, SamplingParams())], 9)
    assert member._texts[SeqId(1)].own.tokens == 64


def test_a_suffix_tree_has_the_likeliest_nodes() -> None:
    member = SuffixSpeculator(n=2, depth=5, width=2, alpha=2, least=0.0)
    tokens = [A, B, C, D, X, A, B, C, D, Y, A, B, E, F, F, A, B]
    member.begin(SeqId(0), tokens)
    (found,) = member.propose([SeqView(SeqId(0), tokens, 17, SamplingParams())], 100)
    assert found.tokens[:2] == (C, D)
    assert found.parents[:2] == (-1, 0)
    assert E in found.tokens
    assert found.parents[found.tokens.index(E)] == -1
    assert len(found.tokens) == 5


@pytest.mark.parametrize("seed", range(8))
def test_the_automaton_knows_every_substring_and_its_successors(seed: int) -> None:
    numbers = random.Random(seed)
    texts = [[numbers.randrange(3) for _ in range(numbers.randrange(1, 25))] for _ in range(3)]
    automaton = SuffixAutomaton()
    for text in texts:
        automaton.part()
        for token in text:
            automaton.add(token)
    after: dict[tuple[int, ...], set[int]] = {}
    for text in texts:
        for start in range(len(text)):
            for end in range(start, len(text)):
                after.setdefault(tuple(text[start:end]), set()).add(text[end])
                after.setdefault(tuple(text[start : end + 1]), set())
    for string, ways in after.items():
        state = ROOT
        for token in string:
            state = automaton.next[state][token]
        assert set(automaton.next[state]) == ways
    assert len(automaton.next) <= 2 * automaton.tokens
    probe = [numbers.randrange(4) for _ in range(60)]
    where, length = ROOT, 0
    for at, token in enumerate(probe):
        where, length = automaton.step(where, length, token)
        longest = max(n for n in range(at + 2) if tuple(probe[at + 1 - n : at + 1]) in after or n == 0)
        assert length == longest


@pytest.mark.parametrize(
    "text",
    ["ngram:n=0", "ngram:depth=x", "suffix:n=0", "suffix:room=1", "suffix:width=0", "suffix:alpha=0", "suffix:least=2"],
)
def test_senseless_settings_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=text.partition(":")[0]):
        SPECULATORS.build(text)
