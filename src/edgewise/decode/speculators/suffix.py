"""Suffix decoding: what most often followed the longest known ending of the text, in itself and in past outputs.

Each running sequence has an automaton of its own prompt and output; finished outputs go into a shared one of two
generations, of which the older is dropped when the younger is full. The draft grows from the longer match, at each
node by the most frequent next token, for as long as the product of frequencies stays above `least` and the draft within
`alpha` times the match. With `width` above 1 it is a tree, while trees give more tokens a second than chains do here:
the likeliest nodes by that product, up to `width` a parent.

Paper:  Oliaro et al., SuffixDecoding, 2024, arXiv:2411.04975
Exact.
Needs:  REWIND
Cost:   about 5 microseconds and 600 bytes a token of the texts, `room` tokens at most for each sequence and in common
Status: kept
"""

import itertools
from collections.abc import Sequence
from heapq import heappop, heappush, nlargest
from typing import ClassVar

from edgewise.base import BadInput, Cap, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.automaton import ROOT, SuffixAutomaton
from edgewise.decode.curve import Rival
from edgewise.decode.pacing import match_class

NOTHING = Draft()
CLEAR = 0.6  # of several ways the most frequent one


class Text:
    """One running sequence. own: of its tokens. matches: (state, length) in each shared automaton."""

    __slots__ = ("matches", "own", "prompt", "read", "tokens", "where")

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens, self.prompt = tokens, len(tokens)
        self.read = 0
        self.own = SuffixAutomaton()
        self.where = (ROOT, 0)  # in own, once that is full
        self.matches: dict[int, tuple[int, int]] = {}


class SuffixSpeculator:
    """depth: of the draft, and nodes at most. width: nodes a parent; 1: a chain. n: tokens that must match. room:
    tokens remembered of a sequence, and in common of past outputs. alpha: depth for each matching token. least: of a
    node's frequency. past: whether outputs are remembered at all."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, depth: int = 16, width: int = 1, n: int = 2, room: int = 65536, alpha: float = 2.0, least: float = 0.1,
        past: bool = True,
    ) -> None:
        if not all(isinstance(value, int) and value >= 1 for value in (depth, width, n)):
            given = f"{depth!r}, {width!r} and {n!r}"
            raise BadInput(f"speculator 'suffix': depth, width and n must be integers of at least 1, not {given}.")
        if not (isinstance(room, int) and room >= 2 and alpha > 0 and 0 <= least <= 1):
            raise BadInput(f"speculator 'suffix': room={room!r}, alpha={alpha!r} or least={least!r} makes no sense.")
        self.depth, self.width, self.n, self.room = depth, width, n, room
        self.alpha, self.least, self.past = alpha, least, past
        self._trees = Rival() if width > 1 else None  # against chains
        self._texts: dict[SeqId, Text] = {}
        self._young = SuffixAutomaton()
        self._old = SuffixAutomaton()

    def prepare(self, target: Target) -> int:
        return 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self._texts[seq] = Text(tokens)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        drafts = []
        for view in seqs:
            text = self._texts[view.seq]
            self._read(text)
            found = self._follow(text, min(self.depth, view.most, budget))
            budget -= len(found.tokens)
            drafts.append(found)
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        if self._trees is not None:
            self._trees.heard(outcomes, spent)

    def end(self, seq: SeqId) -> None:
        text = self._texts.pop(seq, None)
        if text is None or not self.past or len(text.tokens) - text.prompt < 2:
            return
        if self._young.tokens + len(text.tokens) - text.prompt > self.room // 2:
            self._old, self._young = self._young, SuffixAutomaton()
            for other in self._texts.values():  # what they matched in the new old one they find again
                other.matches.clear()
        self._young.part()
        for token in text.tokens[text.prompt : text.prompt + self.room // 2]:
            self._young.add(token)

    def _read(self, text: Text) -> None:
        own, tokens = text.own, text.tokens
        shared = [automaton for automaton in (self._young, self._old) if automaton.tokens]
        for at in range(text.read, len(tokens)):
            token = tokens[at]
            if own.tokens < self.room:
                own.add(token)
                if own.tokens == self.room:
                    text.where = (own.link[own.last], own.length[own.link[own.last]])
            else:
                text.where = own.step(*text.where, token)
            for automaton in shared:
                state, length = text.matches.get(id(automaton), (ROOT, 0))
                text.matches[id(automaton)] = automaton.step(state, length, token)
        text.read = len(tokens)

    def _follow(self, text: Text, most: int) -> Draft:
        if most < 1:
            return NOTHING
        own = text.own
        if own.tokens < self.room:
            state = own.link[own.last] if own.last else ROOT
            best, length = own, own.length[state]
        else:
            best, (state, length) = own, text.where
        for automaton in (self._young, self._old):
            there, long = text.matches.get(id(automaton), (ROOT, 0))
            if long > length:
                best, state, length = automaton, there, long
        if length < self.n:
            return NOTHING
        deep = min(most, int(self.alpha * length))
        if self._trees is not None and self._trees.first:
            return self._tree(best, state, most, deep)
        return self._chain(best, state, deep, length)

    def _tree(self, best: SuffixAutomaton, state: int, most: int, deep: int) -> Draft:
        """The nodes with the largest products of frequencies, each after its parent."""
        tokens: list[int] = []
        parents: list[int] = []
        order = itertools.count()  # of equals the first
        ahead: list[tuple[float, int, int, int, int, int]] = []

        def open_(state: int, score: float, parent: int, depth: int) -> None:
            while state and not best.next[state]:
                state = best.link[state]
            ways = best.next[state]
            if best.length[state] < self.n or depth > deep or not ways:
                return
            total = sum(best.count[there] for there in ways.values()) + len(ways)
            for token, there in nlargest(self.width, ways.items(), key=lambda way: best.count[way[1]]):
                share = score * (best.count[there] + 1) / total if len(ways) > 1 else score
                if share >= self.least:
                    heappush(ahead, (-share, next(order), token, there, parent, depth))

        open_(state, 1.0, -1, 1)
        while ahead and len(tokens) < most:
            score, _, token, there, parent, depth = heappop(ahead)
            tokens.append(token)
            parents.append(parent)
            open_(there, -score, len(tokens) - 1, depth + 1)
        return Draft(tuple(tokens), tuple(parents))

    def _chain(self, best: SuffixAutomaton, state: int, deep: int, same: int) -> Draft:
        """same: how many tokens before it agree."""
        found: list[int] = []
        kinds: list[int] = []
        score = 1.0
        nexts, count = best.next, best.count
        for _ in range(deep):
            while state and not nexts[state]:  # the text's end: what follows it has begun to repeat itself
                state = best.link[state]
            ways = nexts[state]
            if best.length[state] < self.n or not ways:
                break
            if len(ways) == 1:
                ((token, there),) = ways.items()
                clear = 3 if count[there] > 1 else 2
            else:
                token, there = max(ways.items(), key=lambda way: count[way[1]])
                share = (count[there] + 1) / (sum(count[s] for s in ways.values()) + len(ways))
                score, clear = score * share, int(share > CLEAR)
                if score < self.least:
                    break
            kinds.append(4 * match_class(min(same, best.length[state])) + clear)
            found.append(token)
            state, same = there, same + 1
        return Draft.chain(found, kinds=kinds)
