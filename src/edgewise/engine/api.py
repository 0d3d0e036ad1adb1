"""L6's contract: the loop. Policies are pure (state in, decision out); the runner does the work of one step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgewise.base import SeqId


@dataclass(frozen=True)
class Job:
    """What a policy may know about one request."""

    seq: SeqId
    arrival_s: float
    prompt_tokens: int
    prefilled: int  # prompt tokens already in the cache
    generated: int
    running: bool
    priority: int = 0


@dataclass(frozen=True)
class Budget:
    """What one step may spend."""

    tokens: int  # rows in the batch
    sequences: int
    free_tokens: int  # KV room


@dataclass(frozen=True)
class Decision:
    """Who does what in this step: prefill so many tokens of a sequence, decode one, preempt."""

    prefill: tuple[tuple[SeqId, int], ...] = ()
    decode: tuple[SeqId, ...] = ()
    preempt: tuple[SeqId, ...] = ()


class SchedulerPolicy(Protocol):
    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision: ...
