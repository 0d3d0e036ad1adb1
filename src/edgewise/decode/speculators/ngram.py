"""Prompt lookup: what followed the last n tokens when they stood in this text before.

Of the most recent places where the last `n` tokens stand, the one is taken whose text before them agrees longest; it
drafts a chain of what came next. Nothing is drafted for a text that does not repeat itself.

Paper:  Saxena, Prompt Lookup Decoding, 2023, https://github.com/apoorvumang/prompt-lookup-decoding
Exact.
Needs:  REWIND
Cost:   one dictionary entry a token of each running sequence, one look-up a step
Status: kept
"""

from collections.abc import Sequence
from typing import ClassVar

from edgewise.base import BadInput, Cap, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.pacing import match_class

NOTHING = Draft()
PLACES = 8  # most recent ones of an n-gram that are compared
BEFORE = 32  # tokens before them that are


class Text:
    """Where each n-gram of one sequence ends, most recent last."""

    __slots__ = ("places", "read")

    def __init__(self) -> None:
        self.places: dict[tuple[int, ...], list[int]] = {}
        self.read = 0  # n-grams that end before this index are known


class NgramSpeculator:
    """n: tokens that must agree. depth: tokens drafted at most."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(self, n: int = 3, depth: int = 8) -> None:
        if not (isinstance(n, int) and isinstance(depth, int) and n >= 1 and depth >= 1):
            raise BadInput(f"speculator 'ngram': n and depth must be integers of at least 1, not {n!r} and {depth!r}.")
        self.n, self.depth = n, depth
        self._texts: dict[SeqId, Text] = {}

    def prepare(self, target: Target) -> int:
        return 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self._texts[seq] = Text()

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        drafts = []
        for view in seqs:
            found, same = self._follow(view.tokens, self._texts[view.seq], min(self.depth, view.most, budget))
            budget -= len(found)
            kinds = [match_class(same + at) for at in range(len(found))]
            drafts.append(Draft.chain(found, kinds=kinds) if found else NOTHING)
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        pass

    def end(self, seq: SeqId) -> None:
        self._texts.pop(seq, None)

    def _follow(self, tokens: Sequence[int], text: Text, most: int) -> tuple[Sequence[int], int]:
        """A chain, and how many tokens before it agree."""
        n, places, last = self.n, text.places, len(tokens) - 1
        for end in range(max(text.read, n - 1), last):  # the last n-gram has no successor yet
            key = tuple(tokens[end - n + 1 : end + 1])
            seen = places.get(key)
            if seen is None:
                places[key] = [end]
            else:
                seen.append(end)
                if len(seen) > PLACES:
                    del seen[0]
        text.read = max(text.read, last)
        if most < 1 or last < n - 1:
            return (), 0
        best, longest = -1, -1
        for end in reversed(places.get(tuple(tokens[last - n + 1 :]), ())):
            same = 0
            while same < BEFORE and end - n - same >= 0 and tokens[end - n - same] == tokens[last - n - same]:
                same += 1
            if same > longest:
                best, longest = end, same
        if best < 0:
            return (), 0
        found = list(tokens[best + 1 : best + 1 + most])
        while len(found) < most:  # the place is near the end: what follows it has begun to repeat itself
            found.append(found[len(found) - (last - best)])
        return found, n + longest
