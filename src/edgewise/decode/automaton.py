"""A suffix automaton that grows token by token: every string that occurs in its texts, and what came after it."""

from collections.abc import Mapping

ROOT = 0
CLIMB = 16  # shorter contexts that learn of each new token; beyond, counts are too low, which only costs drafts

NOWHERE: Mapping[int, int] = {}


class SuffixAutomaton:
    """States are sets of strings with the same occurrences; at most two a token. next[s]: token → state; length[s]: of
    the longest string of s; link[s]: the state of its longest suffix that occurs elsewhere too; count[s]: occurrences.

    Paper: Blumer et al., The Smallest Automaton Recognizing the Subwords of a Text, 1985."""

    __slots__ = ("count", "last", "length", "link", "next", "tokens")

    def __init__(self) -> None:
        self.next: list[dict[int, int]] = [{}]
        self.link, self.length, self.count = [-1], [0], [0]
        self.last = ROOT
        self.tokens = 0

    def part(self) -> None:
        """The next token begins another text."""
        self.last = ROOT

    def add(self, token: int) -> None:
        self.tokens += 1
        nexts, link, length, count = self.next, self.link, self.length, self.count
        old = self.last
        there = nexts[old].get(token)
        if there is not None:  # only after `part`: this text is known so far
            state = there if length[there] == length[old] + 1 else self._clone(old, there, token)
        else:
            state = self._state(length[old] + 1, {}, ROOT)
            at = old
            while at != -1 and token not in nexts[at]:
                nexts[at][token] = state
                at = link[at]
            if at != -1:
                there = nexts[at][token]
                link[state] = there if length[there] == length[at] + 1 else self._clone(at, there, token)
        self.last = state
        for _ in range(CLIMB):
            if state <= ROOT:
                break
            count[state] += 1
            state = link[state]

    def _state(self, length: int, nexts: dict[int, int], link: int, count: int = 0) -> int:
        self.next.append(nexts)
        self.length.append(length)
        self.link.append(link)
        self.count.append(count)
        return len(self.next) - 1

    def _clone(self, at: int, there: int, token: int) -> int:
        """Splits the state `there`: its strings of at most length[at] + 1 tokens occur more often than the others."""
        nexts, link = self.next, self.link
        clone = self._state(self.length[at] + 1, nexts[there].copy(), link[there], self.count[there])
        link[there] = clone
        while at != -1 and nexts[at].get(token) == there:
            nexts[at][token] = clone
            at = link[at]
        return clone

    def step(self, state: int, length: int, token: int) -> tuple[int, int]:
        """From the longest suffix of a text that occurs here, (its state, its length), to that of text + token."""
        while state and token not in self.next[state]:
            state = self.link[state]
            length = min(length, self.length[state])  # a split may have put our string into the shorter half
        there = self.next[state].get(token)
        return (ROOT, 0) if there is None else (there, length + 1)
