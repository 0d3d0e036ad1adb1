"""L5's contract: from logits to tokens. A chain draft is a thin tree; the null speculator drafts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from edgewise.base import Cap, SamplingParams, SeqId, Tap
from edgewise.kernels.api import Floats


@dataclass(frozen=True)
class SeqView:
    """What decode members may see of a sequence: its tokens (prompt and output) and its settings.

    `tokens` is the engine's own list: it grows from step to step and is never edited here. `seed` is the sequence's
    own stream: params.seed (or the engine's choice) plus the sample's index in the upper 64 bits.
    """

    seq: SeqId
    tokens: Sequence[int]
    prompt_tokens: int
    params: SamplingParams
    seed: int = 0


@dataclass(frozen=True)
class Draft:
    """A draft tree in parent-before-child order. parents[i] is an index into tokens, or -1 for the last real token."""

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()


class Accepted(NamedTuple):
    """The outcome of one verification: new tokens (at least one) and which draft nodes they came from."""

    seq: SeqId
    tokens: tuple[int, ...]
    nodes: tuple[int, ...] = ()
    logits_rows: tuple[int, ...] = ()


class Speculator(Protocol):
    needs: ClassVar[frozenset[Cap]]
    taps: ClassVar[frozenset[Tap]]

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None: ...

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]: ...

    def accepted(self, outcomes: Sequence[Accepted]) -> None: ...

    def end(self, seq: SeqId) -> None: ...


class Sampler(Protocol):
    """Turns one row of final logits (vocab,) into a token. Deterministic in (params.seed, position).

    best: the first index of the row's largest value where the device has told it, else -1."""

    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int, best: int = -1) -> int: ...


class LogitsRule(Protocol):
    """Changes logits before sampling: penalties, bias, grammar. Returns the array, edited in place, or a new one."""

    def apply(self, seq: SeqView, logits: Floats) -> Floats: ...


class Verifier(Protocol):
    """Keeps the longest valid path of a draft. logits[0] follows the last real token, logits[1 + i] follows node i.

    best: the first index of each row's largest value, before any rule. Every logit is finite."""

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted: ...
