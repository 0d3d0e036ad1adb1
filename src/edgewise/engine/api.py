"""L6's contract: the loop. Policies are pure (state in, decision out); the runner does the work of one step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edgewise.base import SeqId
from edgewise.kernels.api import Floats


@dataclass(frozen=True)
class Job:
    """What a policy may know about one sequence (a request of n samples is n of them)."""

    seq: SeqId
    arrival_s: float
    prompt_tokens: int  # to be cached before the next token can be drawn: the prompt, or after preemption all there was
    prefilled: int  # tokens in the cache
    generated: int
    running: bool  # it holds KV pages
    priority: int = 0


@dataclass(frozen=True)
class Budget:
    """What one step may spend."""

    tokens: int  # rows in the batch
    sequences: int  # that may hold KV pages at once
    free_tokens: int  # KV room, in whole pages
    page_tokens: int = 1  # KV room is handed out in pages of this many tokens


@dataclass(frozen=True)
class Decision:
    """Who does what in this step. `preempt` is an list of volunteers: the first of them gives up its pages, then the
    next, when (and only when) the work above does not fit."""

    prefill: tuple[tuple[SeqId, int], ...] = ()
    decode: tuple[SeqId, ...] = ()
    preempt: tuple[SeqId, ...] = ()


class SchedulerPolicy(Protocol):
    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision: ...


class Work(NamedTuple):
    """One sequence's part of a step: new tokens after `past` cached ones, and the last `wanted` of them get logits."""

    seq: SeqId
    tokens: Sequence[int]
    past: int
    wanted: int


class Runner(Protocol):
    """Does the work of one step. Room for it was reserved; afterwards the tokens are cached."""

    def step(self, work: Sequence[Work]) -> Floats: ...  # (sum of wanted, vocab): valid until the next step

    # of each row of the last step's logits: the first index of its largest value; -1 where a value is not finite
    def peaks(self) -> Sequence[int]: ...
