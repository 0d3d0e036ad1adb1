"""Drafting under a cap on what generation takes: pages of KV, the drafts' own, activations and logits of a pass.

Of all depths, draft windows and pass sizes the one is taken that promises most tokens a second and whose bytes, known
beforehand, stay below the cap; where nothing fits but plain decoding, that is what happens. What was planned cannot be
exceeded: caches have no more pages, passes no more rows, and the allocator gives back what it would keep beyond it.
The member within is gated as `auto` gates, so that drafting that does not pay is left alone.

Paper:  SpecMemo, 2025, arXiv:2506.01986 (its own formula is not public: this one counts what our allocators do)
Exact.
Needs:  REWIND; a device that can count its activations, for them to be held to the plan
Cost:   passes of fewer rows while a prompt is read; a draft model that sees a window of the text
Status: kept
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgewise.base import BadInput, Cap, OutOfRoom, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.drafting import same_vocabulary
from edgewise.decode.speculators import SPECULATORS, TEXT_BYTES, WITH_MODEL
from edgewise.kv.types import token_bytes
from edgewise.models import read_spec
from edgewise.models.api import ModelSpec
from edgewise.models.footprint import block_bytes, pass_bytes, table_bytes
from edgewise.models.streaming import parse_size
from edgewise.weights import open_checkpoint

PAGE = 16  # of a draft model's KV
CHEAPEST = next(iter(TEXT_BYTES))
HOPE = 0.7  # that a drafted token comes true
ROW = 0.02  # of a plain pass, for each row more
WINDOWS = (1 << 30, 1024, 512, 256, 128, 64)
ROWS = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16)
MIB = 1 << 20
NOTHING = Draft()


@dataclass(frozen=True)
class Memory:
    """Bytes of a plan, by what takes them."""

    rows: int  # of a pass
    pages: int  # of the target's KV
    depth: int  # drafted tokens; 0: plain decoding
    window: int  # tokens that a draft model sees
    served: int  # sequences that are drafted for at once
    kv: int
    draft: int  # the draft model's KV, or what is known of texts
    passes: int  # activations and logits

    @property
    def total(self) -> int:
        return self.kv + self.draft + self.passes

    def words(self) -> str:
        what = f"drafts of {self.depth}, window {self.window}" if self.depth else "plain decoding"
        return (
            f"{self.total / MIB:.1f} MiB for generation: {self.kv / MIB:.1f} KV, {self.draft / MIB:.1f} drafts, "
            f"{self.passes / MIB:.1f} passes of {self.rows} rows; {what}"
        )


class SpecMemoSpeculator:
    """cap: bytes of generation, as in 64MiB. model: of a draft model. member: who drafts, without one ngram. depth:
    tokens of a draft at most. gate: leave sequences alone where drafting does not pay. dtype: of a draft model's KV."""

    needs: ClassVar[frozenset[Cap]] = frozenset({Cap.REWIND})
    taps: ClassVar[frozenset[Tap]] = frozenset()

    def __init__(
        self, cap: str | float = 0, model: str = "", member: str = "", depth: int = 8, gate: bool = True,
        dtype: str = "f16",
    ) -> None:
        if not cap:
            raise BadInput("speculator 'specmemo' needs a cap, as in specmemo:cap=64MiB.")
        self.member = member or (WITH_MODEL if model else CHEAPEST)
        if self.member != WITH_MODEL and self.member not in TEXT_BYTES:
            raise BadInput(f"speculator 'specmemo' cannot tell what '{member}' will take. Use draft, ngram or suffix.")
        if (self.member == WITH_MODEL) != bool(model):
            raise BadInput("speculator 'specmemo': a model goes with member 'draft', and with nobody else.")
        if not (isinstance(depth, int) and depth >= 1):
            raise BadInput(f"speculator 'specmemo': depth={depth!r} must be an integer of at least 1.")
        self.cap, self.model, self.depth, self.gate, self.dtype = parse_size(cap), model, depth, gate, dtype
        self.plan = Memory(0, 0, 0, 0, 0, 0, 0, 0)
        self._inner: Any = SPECULATORS.build("none")
        self._hold: Any = None  # until the first sequence: weights have their blocks by then

    def prepare(self, target: Target) -> int:
        drafter, weights = None, 0
        if self.model:
            checkpoint = open_checkpoint(self.model)
            drafter = read_spec(checkpoint.header())
            same_vocabulary(checkpoint.header(), drafter.vocab, target)
            weights = sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names())
        self.plan = plan = self.choose(target, drafter, weights)
        target.room.rows = min(target.room.rows, plan.rows)
        target.room.pages = plan.pages
        notes = getattr(target.device, "notes", None)
        if notes is not None:
            notes.append(f"specmemo: {plan.words()} (cap {self.cap / MIB:.1f} MiB).")
        held = 0
        if plan.depth:
            self._inner = self._build(plan)
            held = self._inner.prepare(target)
        self._hold = getattr(target.device, "activations", None)
        return held

    def choose(self, target: Target, drafter: ModelSpec | None, draft_weights: int = 0) -> Memory:
        """The best plan that fits. Raises OutOfRoom when even plain decoding does not."""
        room, best, most = target.room, None, 0.0
        size = sum(_matrices(target.spec))
        share = sum(_matrices(drafter)) / size if drafter else 0.0
        depths = [0, *(d for d in (1, 2, 3, 4, 6, 8, 12, 16) if d < self.depth), self.depth]
        windows = [min(w, target.context) for w in WINDOWS] if drafter else [target.context]
        for rows, depth, window in itertools.product(ROWS, depths, dict.fromkeys(windows)):
            if rows > room.rows or rows < 1 + depth or (depth and drafter and window < 2 * depth + 2):
                continue
            plan = self._memory(target, drafter, min(rows, room.rows), depth, window, 1)
            if plan.total > self.cap:
                continue
            tokens = (1 - HOPE ** (depth + 1)) / (1 - HOPE)
            value = tokens / (1 + ROW * depth + share * depth) * (1 - 4 / rows) * (1 - 8 / window if depth else 1)
            if value > most:
                best, most = plan, value
        if best is None:
            least = self._memory(target, drafter, min(ROWS[-1], room.rows), 0, target.context, 1).total
            raise OutOfRoom(
                f"specmemo: {target.context} tokens of {target.header.name} take {least / MIB:.1f} MiB in plain "
                f"decoding already, but the cap is {self.cap / MIB:.1f} MiB. Give it more, or a smaller ctx_size."
            )
        for served in range(2, target.sequences + 1):
            more = self._memory(target, drafter, best.rows, best.depth, best.window, served)
            if more.total > self.cap or served * (1 + best.depth) > best.rows:
                break
            best = more
        return best

    def _memory(
        self, target: Target, drafter: ModelSpec | None, rows: int, depth: int, window: int, served: int
    ) -> Memory:
        room, spec = target.room, target.spec
        page = room.page_bytes or token_bytes(spec.layers, spec.kv_heads, spec.head_dim, "f16") * room.page_tokens
        pages = -(-target.context // room.page_tokens) * served
        wanted = min(rows, target.sequences + depth * served)
        kept = block_bytes(4 * spec.vocab * wanted) + table_bytes(spec, target.context)  # logits: of the pass before
        passes, drafts = pass_bytes(spec, rows, wanted, room.formats), 0
        if depth and drafter is None:
            drafts = TEXT_BYTES[self.member] * target.context * served
        elif depth:
            assert drafter is not None
            one = token_bytes(drafter.layers, drafter.kv_heads, drafter.head_dim, self.dtype) * PAGE
            drafts = -(-min(window, drafter.context) // PAGE) * one * served
            kept += block_bytes(4 * drafter.vocab * served) + table_bytes(drafter, window)
            passes = max(passes, pass_bytes(drafter, self._chunk(rows), served, ("F32",)))
        return Memory(rows, pages, depth, window, served, pages * page, drafts, passes + kept)

    @staticmethod
    def _chunk(rows: int) -> int:
        return min(256, rows)

    def _build(self, plan: Memory) -> Any:
        settings: dict[str, Any] = {"depth": plan.depth}
        if self.member == WITH_MODEL:
            settings |= {"model": self.model, "window": plan.window, "dtype": self.dtype}
            settings |= {"chunk": self._chunk(plan.rows)}
        inner = SPECULATORS.build(self.member, **settings)
        if hasattr(inner, "past"):
            inner.past = False  # a memory of past outputs is in no plan
        if not self.gate:
            return inner
        gate = SPECULATORS.build("auto", members=CHEAPEST, depth=plan.depth)
        gate.members, gate.slow = [inner], 0 if self.member == WITH_MODEL else -1
        return gate

    def kv_bytes(self) -> int:
        """What a draft model's cache really took so far."""
        inner = self._inner.members[0] if self.gate and self.plan.depth else self._inner
        return inner.kv_bytes() if hasattr(inner, "kv_bytes") else 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        if self._hold is not None:
            self._hold()  # ends the books of loading
            self._hold(self._hold() + self.plan.passes)
            self._hold = None
        self._inner.begin(seq, tokens)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        if not self.plan.depth:
            return [NOTHING] * len(seqs)
        drafts: Sequence[Draft] = self._inner.propose(seqs, min(budget, self.plan.depth * self.plan.served))
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        self._inner.accepted(outcomes, spent)

    def end(self, seq: SeqId) -> None:
        self._inner.end(seq)


def _matrices(spec: ModelSpec) -> tuple[int, int]:
    """Weights that a token meets: of the layers, of the head."""
    heads = spec.dim * spec.head_dim * (2 * spec.heads + 2 * spec.kv_heads)
    return spec.layers * (heads + 3 * spec.dim * spec.ffn_dim * (spec.experts_per_token or 1)), spec.dim * spec.vocab
