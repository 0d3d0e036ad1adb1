"""What the benches of drafting share: prompts, timed decoding, a speculator that is watched, intervals."""

import inspect
import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pydoc_data.topics import topics
from typing import Any, cast

import numpy as np

from edgewise.base import BadInput, Request, SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, Insider, Pruner, SeqView, Speculator, Spent, Target
from edgewise.kernels.api import Floats

RESAMPLES = 2000
NOISE = "noise"  # drafts at random, in place of the members of auto


def targeted(llm: Any, sequences: int) -> Target:
    """The loaded model as a speculator's `prepare` wants it."""
    parts = llm.parts
    return Target(parts.header, parts.spec, parts.device, parts.context, sequences, False, _pieces)


def decode(
    engine: Any, asked: Sequence[Request], begun: Callable[[], None] = lambda: None
) -> tuple[list[list[int]], float]:
    """Each request's tokens, and the seconds of all steps after the first token of each, at which `begun` is called."""
    import time

    order = [engine.add(request) for request in asked]
    got: dict[str, list[int]] = {name: [] for name in order}
    begin = 0.0
    while engine.has_work():
        for event in engine.step():
            if event.error:
                raise BadInput(event.error)
            got[event.request_id] += event.tokens
        if not begin and all(got.values()):
            begun()
            begin = time.perf_counter()
    return [got[name] for name in order], time.perf_counter() - begin


def questions(llm: Any, task: str, tokens: int, at: int) -> Request:
    """The at-th request of a task."""
    room = llm.context - tokens - 8
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    if task == "noise":
        ids = np.random.default_rng(at).integers(0, llm.parts.spec.vocab, min(room, 128)).tolist()
        return Request(tuple(ids), params)
    if task not in ("edit", "code", "prose"):
        raise BadInput(f"There is no task '{task}'. Known: edit, code, prose, noise.")
    source = (topics["assignment"] + topics["class"] if task == "prose" else inspect.getsource(textwrap))[600 * at :]
    if task != "edit":
        return Request(tuple(llm.tokenizer.encode(source, add_special=True)[: min(room, 256)]), params)
    ids = llm.tokenizer.encode(source)[: min(room, 2 * tokens)]
    lines = llm.tokenizer.decode(ids).splitlines(keepends=True)
    text = "".join(line for i, line in enumerate(lines) if i % 9 != 5).replace("width", "columns").replace("text", "s")
    answer = llm.tokenizer.encode(text)
    if len(answer) < tokens:
        raise BadInput(f"The context of {llm.context} tokens is too short to edit {tokens} of them. Give a smaller -n.")
    return Request(tuple(ids), params, extra={"rules": (partial(Dictation, answer),)})


class Dictation:
    """A rule that leaves one token: the reference answer's."""

    def __init__(self, answer: Sequence[int]) -> None:
        self.answer = answer

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        token = self.answer[len(seq.tokens) - seq.prompt_tokens]
        kept = logits[token]
        logits.fill(-np.inf)
        logits[token] = kept
        return logits


def _pieces(header: Any) -> Any:
    from edgewise.text import pieces_of

    return pieces_of(header)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % of the medians of resamples."""
    numbers = np.random.default_rng(0)
    medians = np.median(numbers.choice(np.array(ratios), (RESAMPLES, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


@dataclass
class Watched:
    """A speculator, and what became of what it drafted."""

    inner: Speculator
    passes: list[tuple[int, float, float]] = field(default_factory=list)  # rows, seconds of the pass, of drafting
    sequences: int = 0  # of those passes
    drafted: int = 0
    tries: int = 0
    hits: int = 0
    drafts: int = 0  # that were not empty
    prepared: bool = False
    last: dict[SeqId, int] = field(default_factory=dict)
    needs: Any = frozenset()

    @property
    def taps(self) -> Any:
        return self.inner.taps

    @property
    def layer(self) -> int:
        return cast(Insider, self.inner).layer

    @property
    def listening(self) -> bool:
        return cast(Insider, self.inner).listening

    @property
    def prunes(self) -> bool:
        return cast(Insider, self.inner).prunes

    def prune(self, drafts: Sequence[Draft], states: Any) -> Sequence[Sequence[int]]:
        return cast(Pruner, self.inner).prune(drafts, states)

    def ready(self, target: Target) -> None:
        if not self.prepared:
            self.inner.prepare(target)
            self.prepared = True

    def prepare(self, target: Target) -> int:
        return self.inner.prepare(target)

    def forget(self) -> None:
        self.passes.clear()
        self.sequences = self.drafted = self.tries = self.hits = self.drafts = 0

    def begin(self, seq: SeqId, tokens: Sequence[int]) -> None:
        self.inner.begin(seq, tokens)

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        found = self.inner.propose(seqs, budget)
        self.last = {view.seq: len(draft.tokens) for view, draft in zip(seqs, found, strict=True)}
        return found

    def attach(self, model: Any, kv: Any) -> None:
        cast(Insider, self.inner).attach(model, kv)

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        if not spent.prefill and spent.decode:
            self.passes.append((spent.decode, spent.pass_s, spent.draft_s))
            for outcome in outcomes:
                some, kept = self.last.get(outcome.seq, 0), len(outcome.nodes)
                self.sequences += 1
                self.drafted += some
                self.drafts += some > 0
                self.hits += kept
                self.tries += min(kept + 1, some)
        self.inner.accepted(outcomes, spent)

    def end(self, seq: SeqId) -> None:
        self.inner.end(seq)

    @property
    def acceptance(self) -> float:
        return self.hits / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        return 1 + self.hits / self.sequences if self.sequences else 1.0

    def mean(self) -> tuple[float, float, float]:
        """Of a pass: rows, its seconds, those of drafting before it."""
        rows, seconds, drafting = zip(*self.passes or [(0, 0.0, 0.0)], strict=True)
        return statistics.fmean(rows), statistics.fmean(seconds), statistics.fmean(drafting)

    def pass_s(self, rows: int) -> float:
        """Median seconds of passes of so many rows."""
        some = [seconds for count, seconds, _ in self.passes if count == rows]
        return statistics.median(some) if some else 0.0

    def formula(self, one_s: float, batch: int) -> float:
        """What chains of the mean length, each token of which comes true with the mean chance, should gain."""
        if not self.drafts or not one_s:
            return 1.0
        chance, length, share = self.hits / max(1, self.tries), self.drafted / self.drafts, self.drafts / self.sequences
        more = length if chance >= 1 else chance * (1 - chance**length) / (1 - chance)
        drafting = [(seconds, host) for rows, seconds, host in self.passes if rows > batch]
        cost = statistics.median(seconds + host for seconds, host in drafting) / one_s
        asked = len(drafting) / len(self.passes)
        return (1 + share * more) / (1 - asked + asked * cost)


class Noise:
    """Random chains of random lengths."""

    needs: Any = frozenset()
    taps: Any = frozenset()

    def __init__(self, vocab: int) -> None:
        self.vocab, self.numbers = vocab, np.random.default_rng(0)
        self.prepare: Callable[[Target], int] = lambda target: 0
        self.begin = self.end = self.accepted = lambda *_: None

    def propose(self, seqs: Sequence[SeqView], budget: int) -> list[Draft]:
        return [
            Draft.chain(self.numbers.integers(0, self.vocab, min(8, view.most, budget // len(seqs))).tolist())
            for view in seqs
        ]
