"""The one decode loop: continuous batching, chunked prefill, forked samples, preemption by recomputing or by swap.

A step: the policy picks, the speculator drafts, room is reserved (the policy's volunteers give way if there is none),
the runner computes, the verifier accepts, the rest is rewound. Every slot has a null member, so the loop asks no
questions. Law 1 makes the result of a request independent of everything that happens here.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import cast

import numpy as np

from edgewise.base import BadInput, Cap, Clock, EdgewiseError, Event, Incompatible, OutOfRoom, Request, SeqId, WallClock
from edgewise.decode.api import Accepted, Draft, Insider, Speculator, Spent, Verifier
from edgewise.decode.grammars import Grammars, Piece
from edgewise.decode.logprobs import token_logprobs
from edgewise.decode.rules import rules_for
from edgewise.engine.api import Budget, Decision, Ended, Runner, SchedulerPolicy, StepCost, Work
from edgewise.engine.checks import check_request
from edgewise.engine.meter import StepMeter
from edgewise.engine.sample import Sample
from edgewise.engine.trees import first_branch, fitting, kept, leaf_below, leaves, within
from edgewise.kernels.api import Floats
from edgewise.kv.api import KVCache, Swap

NO_DRAFT = Draft()
NOT_FINITE = (
    "The model's logits after token {} are not finite (NaN or infinite). Its weights may be damaged, or overflow: "
    "check the file, or try kv_cache_dtype f32."
)
LATE = "The request was not finished within its timeout_s."
PAST = 512  # requests that are over and that policies may learn from
FADE = 0.999  # of a key's share, for each step
_MASK64 = (1 << 64) - 1


class Engine:
    """context: longest sequence, prompt and output. ends: token ids that end a text. rows: tokens a step may compute.
    sequences: that a step may compute. seed: for requests that bring none. swap: where pages of the preempted go when
    that is cheaper than computing them again. cost: what steps cost, as long as none was measured. waiting: requests
    that may queue; 0: any number. pieces: what each token adds to a text, for grammars."""

    def __init__(
        self,
        runner: Runner,
        kv: KVCache,
        policy: SchedulerPolicy,
        speculator: Speculator,
        verifier: Verifier,
        *,
        vocab: int,
        context: int,
        ends: Collection[int] = (),
        rows: int = 512,
        sequences: int = 16,
        page_tokens: int = 16,
        seed: int = 0,
        clock: Clock | None = None,
        swap: Swap | None = None,
        cost: StepCost = StepCost(),
        waiting: int = 0,
        pieces: Callable[[], Sequence[Piece]] | None = None,
    ) -> None:
        if min(rows, sequences, context) < 1:
            raise BadInput(f"The engine needs rows, sequences and context ≥ 1, not {rows}, {sequences} and {context}.")
        self.runner, self.kv, self.policy = runner, kv, policy
        self._insider = False
        self.draft_with(speculator, verifier)
        self.vocab, self.context, self.ends = vocab, context, frozenset(ends)
        self.grammars = None if pieces is None else Grammars(pieces, vocab, self.ends)
        self.rows, self.sequences, self.page_tokens, self.seed = rows, sequences, page_tokens, seed
        self.capacity = kv.free_tokens()
        self.swap, self.meter, self.waiting = swap, StepMeter(cost), waiting
        self.steps = self.preempted = self.swapped_out = self.swapped_in = self.reused_tokens = 0
        self.decision = Decision()  # the last one
        self._standing = False  # it still holds
        self.schedule_s = self.forward_s = self.sample_s = 0.0  # where the time of its steps went, so far
        self.begun: list[str] = []  # requests that the last step was the first to compute some of
        self._clock = clock or WallClock()
        self._samples: dict[SeqId, Sample] = {}  # in order of arrival; followers are with their leader until they fork
        self._live: dict[str, int] = {}  # request → samples not finished
        self._events: list[Event] = []  # to be told at the next step
        self._past: tuple[Ended, ...] = ()
        self._shares: dict[str, float] = {}
        self._deadlines = False
        self._draft_s, self._spent = 0.0, Spent(0.0, 0.0, 0, 0)
        self._branches: dict[SeqId, list[SeqId]] = {}  # forks that hold the other branches of a tree, for one step
        self._next_branch = itertools.count(-1_000_000, -1)  # requests count up from 0, a runner's own down from -1
        self._ordinal = itertools.count()
        self._next_seq = itertools.count()

    def draft_with(self, speculator: Speculator, verifier: Verifier) -> None:
        """Who drafts and who decides from now on. Only while nothing runs."""
        if speculator.taps or self._insider:
            self.runner.open_to(cast(Insider, speculator) if speculator.taps else None)
        self.speculator, self.verifier, self._insider = speculator, verifier, bool(speculator.taps)

    def add(self, request: Request) -> str:
        """Queues a request; its id. Raises BadInput before any work when it cannot be served."""
        params, ordinal = request.params, next(self._ordinal)
        name = request.id or f"request-{ordinal}"
        if name in self._live:
            raise BadInput(f"A request with the id '{name}' is already running. Give each request its own id.")
        check_request(request, self.vocab, self.context, self.capacity, self.grammars)
        if self.waiting and sum(not sample.running for sample in self._samples.values()) >= self.waiting:
            raise OutOfRoom(f"{self.waiting} requests are waiting already, and no more may. Try again later.")
        longest = self.context if params.max_tokens is None else len(request.tokens) + params.max_tokens
        limit = min(longest, self.context)
        stops: dict[int, int | None] = {token: token for token in params.stop_token_ids}
        stops.update(dict.fromkeys(() if params.ignore_eos else self.ends))
        blocked = [token for token in stops if 0 <= token < self.vocab]
        seed = params.seed
        if seed is None:
            seed = int(np.random.SeedSequence((self.seed & _MASK64, ordinal)).generate_state(1, np.uint64)[0])
        arrival = request.arrival_s or self._clock.now()
        samples = [
            Sample(
                SeqId(next(self._next_seq)), request, name, index, seed & _MASK64 | index << 64, arrival,
                [*rules_for(params, blocked, self.grammars), *(make() for make in request.extra.get("rules", ()))],
                stops, limit,
            )
            for index in range(params.n)
        ]
        if limit <= len(request.tokens):  # nothing may be generated
            self._events += [Event(name, finish_reason="length", index=sample.index) for sample in samples]
            return name
        self._live[name] = len(samples)
        self._deadlines |= samples[0].deadline_s is not None
        samples[0].followers = samples[1:]
        self._enter(samples[0])
        return name

    def holders(self) -> int:
        """How many samples hold KV pages."""
        return sum(sample.running for sample in self._samples.values())

    def has_work(self) -> bool:
        return bool(self._samples or self._events)

    def counts(self) -> tuple[int, int]:
        """Samples that hold pages, and samples that wait for some."""
        running = sum(sample.running for sample in self._samples.values())
        return running, len(self._samples) - running

    def cancel(self, request_id: str, index: int | None = None) -> bool:
        """Drops a request, or one of its samples; its pages are free on return. False when it is not running."""
        mine = [s for s in self._samples.values() if s.request_id == request_id]
        mine += [follower for sample in mine for follower in sample.followers]
        mine = [s for s in mine if index is None or s.index == index]
        for sample in mine:
            self._end(sample, "cancelled")
        return bool(mine)

    def step(self) -> list[Event]:
        """Computes one batch. What is new: one event per sample that got tokens or ended."""
        if self._deadlines:
            self._expire()
        self.begun.clear()
        if self._samples:
            begin = self._clock.now()
            ready = self._place()
            self.schedule_s += self._clock.now() - begin
            try:
                if ready:
                    self._compute(ready)
            except BaseException:  # Ctrl+C included: nobody knows how far it came, so all of it is computed again
                for sample, _, _ in ready:
                    if sample.running:
                        self._close(sample, healthy=False)
                raise
        events, self._events = self._events, []
        return events

    def _compute(self, ready: list[tuple[Sample, Work, Draft]]) -> None:
        """One pass. When it fails, each sequence goes alone, and only those that fail again are lost."""
        self.steps += 1
        begin = self._clock.now()
        try:
            logits = self.runner.step([piece for _, piece, _ in ready])
        except Exception as problem:
            if len(ready) == 1 and not ready[0][1].branches:
                self._end(ready[0][0], "error", _words(problem))
                return
            for entry in ready:
                sample = entry[0]
                if sample.running:
                    if sample.seq in self._branches:  # without its tree
                        self._release(sample.seq)
                        entry = (sample, Work(sample.seq, entry[1].tokens[:1], sample.cached, 1), NO_DRAFT)
                    if self.kv.length(sample.seq) > sample.cached:  # it failed after the work was done
                        self.kv.rewind(sample.seq, sample.cached)
                        self.kv.reserve(sample.seq, sample.cached + len(entry[1].tokens))
                    self._compute([entry])
            return
        now = self._account(ready, begin)
        self._finish(ready, logits)
        self.sample_s += self._clock.now() - now

    def _account(self, ready: list[tuple[Sample, Work, Draft]], begin: float) -> float:
        """Who was served how long, and what it cost. Returns the time after the pass."""
        now = self._clock.now()
        self.forward_s += now - begin
        seconds, prefill, decode, context = now - begin, 0, 0, 0
        if len(self._shares) > 1:
            for key in self._shares:
                self._shares[key] *= FADE
        for sample, piece, _ in ready:
            if not sample.begun:
                sample.begun = True
                self.begun.append(sample.request_id)
            sample.served_s += seconds
            sample.since_s = now
            rows = len(piece.tokens)
            self._shares[sample.key] = self._shares.get(sample.key, 0.0) + rows
            context += piece.past + rows
            if rows == piece.wanted:
                decode += rows
            else:
                prefill += rows
        self.meter.saw(prefill, decode, context, seconds)
        self._spent, self._draft_s = Spent(self._draft_s, seconds, decode, prefill), 0.0
        return now

    def _expire(self) -> None:
        now = self._clock.now()
        for sample in list(self._samples.values()):
            if sample.deadline_s is not None and now >= sample.deadline_s:
                for one in (*sample.followers, sample):
                    self._end(one, "error", LATE)

    def _place(self) -> list[tuple[Sample, Work, Draft]]:
        """Asks the policy and reserves room: who does what in this step."""
        samples = self._samples
        if not self._standing:
            budget = Budget(
                self.rows, self.sequences, self.kv.free_tokens(), self.page_tokens, self.meter.cost, self._past,
                self._shares,
            )  # fmt: skip
            self.decision = self.policy.pick([s.job() for s in samples.values()], budget, self._clock.now())
            self._standing = self.decision.stays
        decision, volunteers = self.decision, self.decision.preempt
        for seq in decision.promote:
            samples[seq].served_s = 0.0
            samples[seq].promotions += 1
        if self.swap is not None:
            for seq in decision.park:
                if samples[seq].running:
                    self._preempt(samples[seq])
            for seq in decision.fetch:
                self.swap.fetch(seq)
        arriving = {seq for seq, _ in decision.prefill if not samples[seq].running}
        decoding = [samples[seq] for seq in decision.decode]
        spare = self.rows - len(decoding) - sum([count for _, count in decision.prefill])
        begin = self._clock.now()
        drafts = self.speculator.propose([s.view for s in decoding], max(0, spare))
        self._draft_s += self._clock.now() - begin
        ready: list[tuple[Sample, Work, Draft]] = []
        for sample, draft in zip(decoding, drafts, strict=True):
            if draft.tokens:
                draft = fitting(draft, sample.limit - len(sample.tokens) - 1)
            ends = leaves(draft) if draft.tokens else ()
            if sample.running and self._reserve(sample, 1 + (ends[0][1] if ends else 0), volunteers):
                branches: tuple[SeqId, ...] = ()
                if len(ends) > 1:
                    draft, branches = self._branch(sample, draft, ends, len(decoding))
                tokens = (*sample.tokens[sample.cached :], *draft.tokens)
                work = Work(
                    sample.seq, tokens, sample.cached, 1 + len(draft.tokens), draft.parents if branches else (),
                    branches,
                )  # fmt: skip
                ready.append((sample, work, draft))
        for seq, count in decision.prefill:
            sample = samples[seq]
            if seq in arriving:
                self._admit(sample)
            elif not sample.running:  # it has just given way to an older one
                continue
            if sample.swapped and not self._bring_back(sample, count, volunteers):
                continue
            count = min(count, sample.target - sample.cached)
            if self._reserve(sample, count, volunteers):
                upto = sample.cached + count
                tokens = tuple(sample.tokens[sample.cached : upto])
                ready.append((sample, Work(seq, tokens, sample.cached, int(upto == sample.target)), NO_DRAFT))
        return [entry for entry in ready if entry[0].running]  # a later one may have put an earlier one out

    def _finish(self, ready: list[tuple[Sample, Work, Draft]], logits: Floats) -> None:
        """Turns the logits of a step into tokens, forks finished prompts, forgets rejected drafts."""
        at, outcomes = 0, []
        peaks = self.runner.peaks()
        left = self.runner.left() if self._insider else {}
        for sample, piece, draft in ready:
            before = piece.past + len(piece.tokens) - max(0, piece.wanted - 1)
            sample.cached = piece.past + len(piece.tokens) if piece.wanted < 2 else before
            if not piece.wanted:
                continue
            whole, nodes = draft, left.get(piece.seq)
            if nodes is not None:
                draft = kept(draft, nodes)
            rows = slice(at, at + piece.wanted - len(whole.tokens) + len(draft.tokens))
            at = rows.stop
            group = [sample, *self._fork(sample)] if sample.followers else (sample,)
            best = peaks[rows]
            if min(best) < 0:
                if best[0] < 0:
                    for member in group:
                        self._end(member, "error", NOT_FINITE.format(len(sample.tokens)))
                    continue
                draft = NO_DRAFT  # what was drafted is at fault, and plain decoding would never have asked
            for member in group:
                try:
                    accepted = self.verifier.accept(member.view, draft, logits[rows], member.rules, best)
                except Exception as problem:  # a rule, or what a user gave it, is at fault: this sample's affair
                    self._end(member, "error", _words(problem))
                    continue
                if self._insider:
                    accepted = accepted._replace(state=rows.start + accepted.logits_rows[-1])
                if nodes is not None:
                    accepted = accepted._replace(nodes=tuple(nodes[node] for node in accepted.nodes))
                outcomes.append(accepted)
                member.cached = before + len(accepted.tokens) - 1
                if piece.branches:
                    self._join(member.seq, whole, accepted, piece.branches)
                if piece.wanted > 1 and self.kv.length(member.seq) > member.cached:
                    self.kv.rewind(member.seq, member.cached)
                self._emit(member, accepted, logits[rows], piece.wanted - 1)
            if sample.running and len(piece.tokens) > piece.wanted:  # a prompt is complete: others may begin with it
                self.kv.remember(sample.seq, sample.tokens)
        spent = self._spent._replace(states=self.runner.shown()) if self._insider else self._spent
        self.speculator.accepted(outcomes, spent)

    def _emit(self, sample: Sample, accepted: Accepted, logits: Floats, drafted: int) -> None:
        """Appends the new tokens, up to the first that ends the text, and tells of them."""
        new: list[int] = []
        reason: str | None = None
        for token in accepted.tokens:
            sample.tokens.append(token)
            new.append(token)
            if token in sample.stops:
                reason = "stop"
                break
            if len(sample.tokens) >= sample.limit:
                reason = "length"
                break
        logprobs = () if sample.logprobs is None else tuple(
            token_logprobs(logits[row], token, sample.logprobs)
            for row, token in zip(accepted.logits_rows, new, strict=False)
        )
        event = Event(
            sample.request_id, tuple(new), logprobs, reason, None, sample.index,
            sample.stops[new[-1]] if reason == "stop" else None, drafted, len(accepted.nodes),
            sample.reused,
        )
        if reason is None:
            self._events.append(event)
        else:
            self._end(sample, reason, event=event)

    def _enter(self, sample: Sample) -> None:
        self._samples[sample.seq], self._standing = sample, False
        self.speculator.begin(sample.seq, sample.tokens)

    def _admit(self, sample: Sample) -> None:
        """Opens the sample in the cache; at least one token is left to compute, or there would be no logits."""
        sample.running = True
        sample.target = len(sample.tokens)
        sample.cached = min(self.kv.open(sample.seq, sample.tokens), sample.target - 1)
        self.reused_tokens += sample.cached
        if sample.target == sample.prompt and sample.served_s == 0:  # later its own pages may be among them
            sample.reused = sample.cached
        if self.kv.length(sample.seq) > sample.cached:
            self.kv.rewind(sample.seq, sample.cached)

    def _fork(self, sample: Sample) -> list[Sample]:
        """The prompt is cached: its other samples start from a copy-on-write fork of it."""
        followers, sample.followers = sample.followers, []
        for follower in followers:
            self.kv.fork(sample.seq, follower.seq)
            follower.running, follower.cached = True, sample.cached
            self._enter(follower)
        return followers

    def _reserve(self, sample: Sample, count: int, volunteers: Sequence[SeqId]) -> bool:
        """Room for `count` more tokens, taken from the volunteers if need be. False when the sample itself gave way."""
        while True:
            try:
                self.kv.reserve(sample.seq, sample.cached + count)
                return True
            except OutOfRoom as full:
                others = any(s.running for s in self._samples.values() if s is not sample)
                victim = next((v for v in volunteers if self._running(v)), sample.seq)
                if not others:
                    self._end(sample, "error", str(full))
                    return False
                self._preempt(self._samples[victim])
                if victim == sample.seq:
                    return False

    def _branch(
        self, sample: Sample, draft: Draft, ends: Sequence[tuple[int, int]], decoding: int
    ) -> tuple[Draft, tuple[SeqId, ...]]:
        """Forks the sample for each further leaf of a tree, for as many as leave two pages to everybody."""
        if Cap.TREE not in self.kv.gives:
            raise Incompatible("This draft is a tree, but the KV cache takes chains only. Draft with width=1.")
        seq, page = sample.seq, self.page_tokens
        some = within(draft, sample.cached, page, self.kv.free_tokens() // page - 2 * decoding)
        if len(leaves(some)) < 2:
            return first_branch(draft, ends[0][0]), ()  # for which there is room already
        draft, ends = some, leaves(some)
        branches = [SeqId(next(self._next_branch)) for _ in ends[1:]]
        self._branches[seq] = branches
        for branch, (_, depth) in zip(branches, ends[1:], strict=True):
            self.kv.fork(seq, branch)
            self.kv.reserve(branch, sample.cached + 1 + depth)
        self.kv.reserve(seq, sample.cached + 1 + ends[0][1])  # what it shared with them it may not have written
        return draft, (seq, *branches)

    def _join(self, seq: SeqId, draft: Draft, accepted: Accepted, branches: Sequence[SeqId]) -> None:
        """The sample goes on with the branch that its accepted path lies in."""
        if accepted.nodes:
            at = leaf_below(draft, accepted.nodes[-1])
            if at:
                self._branches[seq].remove(branches[at])
                self.kv.become(seq, branches[at])
        self._release(seq)

    def _release(self, seq: SeqId) -> None:
        for branch in self._branches.pop(seq, ()):
            self.kv.close(branch)

    def _running(self, seq: SeqId) -> bool:
        return seq in self._samples and self._samples[seq].running

    def _preempt(self, sample: Sample) -> None:
        """Its pages go: to the swap file, or, if that is cheaper, to be computed again. The same bits, by law 1."""
        self.preempted += 1
        if self.swap is not None and sample.cached > 1 and self._swap_pays(sample):
            cached = min(sample.cached, len(sample.tokens) - 1)  # one must be left, for its logits
            if self.kv.length(sample.seq) > cached:
                self.kv.rewind(sample.seq, cached)
            if self.swap.put(sample.seq, cached, self.kv.export(sample.seq)):
                sample.swapped = cached
                self.swapped_out += 1
        self._close(sample)

    def _swap_pays(self, sample: Sample) -> bool:
        """Against computing the cached tokens again, at what steps cost here."""
        cost, nbytes = self.meter.cost, sample.cached * getattr(self.kv, "token_bytes", 0)
        steps = -(-sample.cached // self.rows)
        again = steps * cost.step_s + cost.seconds(sample.cached)
        assert self.swap is not None
        return again == 0 or self.swap.seconds(nbytes) < again

    def _bring_back(self, sample: Sample, count: int, volunteers: Sequence[SeqId]) -> bool:
        """What the sample had cached comes from the swap file. False when it had to give way itself."""
        assert self.swap is not None
        length, known = sample.swapped, sample.cached
        if known + self.page_tokens <= length:  # else others kept nearly all of it
            if not self._reserve(sample, length - known + min(count, sample.target - length), volunteers):
                return False
            kept = self.swap.take(sample.seq)
            if kept is not None:
                self.kv.close(sample.seq)
                self.kv.open(sample.seq, ())
                sample.swapped = sample.cached = 0
                if not self._reserve(sample, length, volunteers):
                    return False
                self.kv.adopt(sample.seq, length, kept[1])
                sample.cached = length
                self.swapped_in += 1
        self.swap.drop(sample.seq)
        sample.swapped = 0
        return True

    def _close(self, sample: Sample, healthy: bool = True) -> None:
        """Lets go of its pages. A finished prefill stays of use, whatever became of the request."""
        self._standing = False
        self._release(sample.seq)
        if healthy:
            self.kv.remember(sample.seq, sample.tokens)
        self.kv.close(sample.seq)
        sample.running, sample.cached, sample.target = False, 0, len(sample.tokens)

    def _end(self, sample: Sample, reason: str, error: str | None = None, event: Event | None = None) -> None:
        self._standing = False
        self._events.append(event or Event(sample.request_id, (), (), reason, error, sample.index))
        if sample.running:
            self._close(sample, reason != "error")
        if sample.swapped and self.swap is not None:
            self.swap.drop(sample.seq)
        if sample.seq in self._samples:
            whole = reason in ("stop", "length")
            ended = Ended(sample.prompt, len(sample.tokens) - sample.prompt, whole, sample.arrival_s)
            self._past = (*self._past[1 - PAST :], ended)
        if self._samples.pop(sample.seq, None) is None:  # still a follower
            for leader in self._samples.values():
                if sample in leader.followers:
                    leader.followers.remove(sample)
        else:
            self.speculator.end(sample.seq)
        if sample.followers:  # the leader went before its prompt was cached: the next one leads
            heir, *rest = sample.followers
            heir.followers, sample.followers = rest, []
            self._enter(heir)
        left = self._live[sample.request_id] = self._live[sample.request_id] - 1
        if not left:
            del self._live[sample.request_id]


def _words(problem: Exception) -> str:
    return str(problem) if isinstance(problem, EdgewiseError) else f"{type(problem).__name__}: {problem}"
