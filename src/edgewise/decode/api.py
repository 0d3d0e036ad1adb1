"""L5's contract: from logits to tokens. A chain draft is a thin tree; the null speculator drafts nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgewise.base import Cap, SamplingParams, SeqId, Tap
from edgewise.kernels.api import Array, Device, Floats
from edgewise.kv.api import KVCache
from edgewise.models.api import Model, ModelSpec
from edgewise.weights.api import Header

MANY = 1 << 30


@dataclass(frozen=True)
class SeqView:
    """What decode members may see of a sequence: its tokens (prompt and output) and its settings.

    `tokens` is the engine's own list: it grows from step to step and is never edited here. `seed` is the sequence's
    own stream: params.seed (or the engine's choice) plus the sample's index in the upper 64 bits. `ends` end its text.
    `most`: nodes that may be drafted for it; only an owner of other speculators sets it.
    """

    seq: SeqId
    tokens: Sequence[int]
    prompt_tokens: int
    params: SamplingParams
    seed: int = 0
    ends: Collection[int] = ()
    most: int = MANY

    @property
    def ahead(self) -> int:
        """Tokens that may be drafted for it before its settings end the text; the one that is read anyway not counted.
        """
        bound = self.params.max_tokens
        return MANY if bound is None else max(0, bound - 1 - len(self.tokens) + self.prompt_tokens)


@dataclass(frozen=True)
class Draft:
    """A draft tree in parent-before-child order. parents[i] is an index into tokens, or -1 for the last real token.

    odds: what each node was drawn from, a distribution over the vocabulary (one array for all that share a parent, who
    were drawn in their order, `replaced`: with replacement); empty where tokens were chosen, not drawn. A node that was
    drawn may be left out only for reasons that do not depend on its token.
    kinds: what sort of guess each node is, where its member tells sorts apart, else empty: of one sort about as many
    should come true whatever the sequence.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    odds: tuple[npt.NDArray[np.float64], ...] = ()
    replaced: bool = False
    kinds: tuple[int, ...] = ()

    @staticmethod
    def chain(
        tokens: Sequence[int], odds: Sequence[npt.NDArray[np.float64]] = (), kinds: Sequence[int] = ()
    ) -> "Draft":
        return Draft(tuple(tokens), tuple(range(-1, len(tokens) - 1)), tuple(odds), kinds=tuple(kinds))


class Accepted(NamedTuple):
    """The outcome of one verification: new tokens (at least one) and which draft nodes they came from.

    state: the row of Spent.states that the last of them was read from; the engine fills it in, for who listens."""

    seq: SeqId
    tokens: tuple[int, ...]
    nodes: tuple[int, ...] = ()
    logits_rows: tuple[int, ...] = ()
    state: int = -1


class Spent(NamedTuple):
    """What a step took: seconds of drafting and of the pass; its rows were `decode` (drafts included) and `prefill`.

    states: what a speculator's tap shows of the rows with logits; valid while it is being told."""

    draft_s: float
    pass_s: float
    decode: int
    prefill: int
    states: Array | None = None


@dataclass
class Room:
    """What generation may take. `prepare` may lower rows and pages, and assembly keeps to them.

    rows: of a pass. pages: of the target's KV cache, 0: as usual; page_tokens and page_bytes of each. formats: of the
    target's matrices."""

    rows: int = 512
    pages: int = 0
    page_tokens: int = 16
    page_bytes: int = 0
    formats: Collection[str] = ()


@dataclass(frozen=True)
class Target:
    """The model that is drafted for, and the house it lives in. pieces: the vocabulary of a checkpoint, None where it
    has none. odds: the verifier makes use of Draft.odds. waits: who is called while the target's weights are awaited,
    on the engine's thread between two layers; he does a little and says whether he did anything."""

    header: Header
    spec: ModelSpec
    device: Device
    context: int
    sequences: int
    odds: bool
    pieces: Callable[[Header], Sequence[str] | None]
    room: Room = field(default_factory=Room)
    waits: list[Callable[[], bool]] = field(default_factory=list)


class Speculator(Protocol):
    """Any exception here fails the step: what is drafted may be wrong, but drafting must not be."""

    needs: ClassVar[frozenset[Cap]]
    taps: ClassVar[frozenset[Tap]]

    # before the target's weights are read: loads what it needs of its own, or refuses. The bytes that it will hold
    def prepare(self, target: Target) -> int: ...

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None: ...

    # one draft a sequence, `budget` nodes in all; a draft may come to nothing (its sequence gives way, or ends)
    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]: ...

    # of all sequences that got tokens, drafted for or not
    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None: ...

    def end(self, seq: SeqId) -> None: ...


class Insider(Speculator, Protocol):
    """A speculator that sees inside the target: its taps are not empty. layer: whose output Tap.HIDDEN is to show, in
    Spent.states, if that is what it asks for. listening: whether the next pass is to show it anything; where not,
    Spent.states is None, and the pass is as fast as without it."""

    layer: int
    prunes: bool  # it is a Pruner, and leaves out nodes of drafts in a pass that it listens to, after `layer`

    @property
    def listening(self) -> bool: ...

    # after `prepare`, once the target is there: it may compute with these, and leaves every sequence as it was
    def attach(self, model: Model, kv: KVCache) -> None: ...


class Pruner(Insider, Protocol):
    """An insider that may have `prunes` set."""

    # states: of each draft's last real token and of its nodes, one draft after the other, (rows, dim). The nodes of
    # each that are to be computed to the end, ascending, with all their ancestors
    def prune(self, drafts: Sequence[Draft], states: Array) -> Sequence[Sequence[int]]: ...


class Sampler(Protocol):
    """Turns one row of final logits (vocab,) into a token. Deterministic in (params.seed, position).

    best: the first index of the row's largest value where the device has told it, else -1."""

    def sample(self, logits: Floats, params: SamplingParams, seed: int, position: int, best: int = -1) -> int: ...


class LogitsRule(Protocol):
    """Changes logits before sampling: penalties, bias, grammar. Returns the array, edited in place, or a new one."""

    def apply(self, seq: SeqView, logits: Floats) -> Floats: ...


class Verifier(Protocol):
    """Keeps the longest valid path of a draft. logits[0] follows the last real token, logits[1 + i] follows node i.

    best: the first index of each row's largest value, before any rule. Every logit is finite. The accepted tokens are
    the path's and, unless one of view.ends came first, one more. Rules see each node with its own path as history."""

    odds: ClassVar[bool]  # it makes use of Draft.odds

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted: ...
