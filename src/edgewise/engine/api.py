"""L6's contract: the loop. Policies are pure (state in, decision out); the runner does the work of one step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from edgewise.base import SeqId
from edgewise.decode.api import Insider
from edgewise.kernels.api import Array, Floats


class StepCost(NamedTuple):
    """Seconds of one step: a fixed part (the weights are read), and one for each prompt token, each row that decodes
    (a sequence's last token, or a drafted one), and each cached token that is attended to. Measured by the engine on
    itself, or given (the simulator)."""

    step_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    context_s: float = 0.0

    def seconds(self, prefill: int = 0, decode: int = 0, context: int = 0) -> float:
        return self.step_s + prefill * self.prefill_s + decode * self.decode_s + context * self.context_s


NO_COST = StepCost()


class Ended(NamedTuple):
    """What a request that is over needed; policies learn from these. Not whole: it was cancelled or failed."""

    prompt_tokens: int
    generated: int
    whole: bool = True
    arrival_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """What a policy may know about one sequence (a request of n samples is n of them)."""

    seq: SeqId
    arrival_s: float
    prompt_tokens: int  # to be cached before the next token can be drawn: the prompt, or after preemption all there was
    prefilled: int  # tokens in the cache
    generated: int
    running: bool  # it holds KV pages
    priority: int = 0  # lower goes first, as in vLLM
    key: str = ""  # whose request it is, for fair shares
    left: int = 0  # tokens that may still be generated: an upper limit, exact where nothing else ends the text
    served_s: float = 0.0  # duration of the steps it took part in since it arrived or was last promoted
    since_s: float = 0.0  # when it last took part in a step; before that, its arrival
    promotions: int = 0
    swapped: int = 0  # tokens kept in the swap file while it holds no pages


@dataclass(frozen=True)
class Budget:
    """What one step may spend, and what the engine knows about itself."""

    tokens: int  # rows in the batch
    sequences: int  # that one step computes; more may hold KV pages
    free_tokens: int  # KV room, in whole pages
    page_tokens: int = 1  # KV room is handed out in pages of this many tokens
    cost: StepCost = NO_COST
    ended: Sequence[Ended] = ()  # the most recent ones, oldest first
    shares: Mapping[str, float] = field(default_factory=dict)  # key → rows computed for it, older ones fading


@dataclass(frozen=True)
class Decision:
    """Who does what in this step. `preempt` is a list of volunteers: the first of them gives up its pages, then the
    next, when (and only when) the work above does not fit."""

    prefill: tuple[tuple[SeqId, int], ...] = ()
    decode: tuple[SeqId, ...] = ()
    preempt: tuple[SeqId, ...] = ()
    promote: tuple[SeqId, ...] = ()  # their service is counted from zero again
    park: tuple[SeqId, ...] = ()  # give up their pages now, ahead of need; none of them has work above
    fetch: tuple[SeqId, ...] = ()  # have been swapped out and will soon be wanted: begin to read them back
    stays: bool = False  # the answer will be the same until a sequence comes, goes or gives up its pages


class SchedulerPolicy(Protocol):
    def pick(self, jobs: Sequence[Job], budget: Budget, now: float) -> Decision: ...


class Work(NamedTuple):
    """One sequence's part of a step: new tokens after `past` cached ones, and the last `wanted` of them get logits.

    Where they end in a tree, `parents` are Draft.parents of its nodes, the last len(parents) tokens, and `branches` the
    sequences of its leaves, in order: `seq` itself, then forks of it. A chain needs neither."""

    seq: SeqId
    tokens: Sequence[int]
    past: int
    wanted: int
    parents: Sequence[int] = ()
    branches: Sequence[SeqId] = ()


class Runner(Protocol):
    """Does the work of one step. Room for it was reserved; afterwards the tokens are cached."""

    # (sum of wanted, vocab), less the rows of nodes that were left out: valid until the next step
    def step(self, work: Sequence[Work]) -> Floats: ...

    # of the last step, where an insider pruned a draft: the nodes that were computed to the end
    def left(self) -> Mapping[SeqId, Sequence[int]]: ...

    # of each row of the last step's logits: the first index of its largest value; -1 where a value is not finite
    def peaks(self) -> Sequence[int]: ...

    # from now on: what its taps ask for of each step, in the order of the logits; the same logits, bit for bit
    def open_to(self, insider: Insider | None) -> None: ...
    def shown(self) -> Array | None: ...  # of the last step; None: to nobody
