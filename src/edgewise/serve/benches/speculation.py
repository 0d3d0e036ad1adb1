"""`edgewise bench speculation`: tokens a pass, acceptance and speed-up of drafting, beside a formula.

Paper:  Leviathan et al., 2023, arXiv:2211.17192 (the formula: (1 - a^(g+1)) / ((1 - a) (c g + T(g+1)/T(1))))
Exact.  Every run's tokens must equal the plain run's, or the command fails.
Needs:  a model with a tokenizer; --draft for the draft model
Cost:   rounds x tokens x (speculators + 1) x tasks, decoded
Status: kept
"""

import inspect
import json
import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pydoc_data.topics import topics
from typing import Annotated, Any, cast

import numpy as np
import typer

from edgewise.base import BadInput, EdgewiseError, Request, SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, Insider, SeqView, Speculator, Spent, Target
from edgewise.kernels.api import Floats
from edgewise.serve.options import Json, Threads, split_members, table

NOISE = "noise"  # drafts at random, in place of the members of auto
RESAMPLES = 2000


def measure_speculation(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, user/repo; none: embedded")] = None,
    draft: Annotated[str | None, typer.Option(help="a draft model of the same vocabulary")] = None,
    speculators: Annotated[
        str, typer.Option(help=f"names with settings, commas between them; {NOISE}: random drafts under auto")
    ] = f"ngram,suffix,auto,{NOISE}",
    tasks: Annotated[str, typer.Option(help="of edit, code, prose, noise")] = "edit,code",
    tokens: Annotated[int, typer.Option("-n", min=8, help="decoded in each run")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="pairs of runs, with and without by turns")] = 7,
    batch: Annotated[int, typer.Option(min=1, help="sequences at once")] = 1,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Decodes the same tokens with and without each speculator, by turns, in one process on one copy of the weights.

    edit: the answer is dictated by a rule (renamed words and dropped lines of the text in the prompt), since small
    models cannot edit; every row is computed all the same. code, prose, noise: prompts that are continued greedily.
    gain: median of the pairs' ratios, with its 95 % interval. formula: from acceptance, draft length, and the measured
    T(N)/T(1) and drafting time.
    """
    from edgewise.decode.speculators import SPECULATORS, WITH_MODEL
    from edgewise.serve import hub
    from edgewise.serve.llm import LLM

    names = split_members(speculators)
    if draft is not None:
        names.append(f"{WITH_MODEL}:model={hub.locate(draft)}")
    if not names:
        raise BadInput("--speculators names none.")
    path = None if model is None else hub.locate(model)
    with LLM(path, threads=threads, max_num_seqs=max(batch, 4), ctx_size=None) as llm:  # pages for the leaves of trees
        members: list[tuple[str, Watched]] = [("none", Watched(SPECULATORS.build("none")))]
        for name in names:
            member = SPECULATORS.build("auto" if name == NOISE else name)
            if name == NOISE:
                member.members, member.slow = [Noise(llm.parts.spec.vocab) for _ in member.members], -1
            for one in (member, *getattr(member, "members", ())):
                if hasattr(one, "past"):
                    one.past = False  # the rounds decode the same texts: nobody may remember them
            members.append((name, Watched(member)))
        found = [one for task in tasks.split(",") for one in compare(llm, members, task, tokens, rounds, batch)]
    if as_json:
        print(json.dumps(found, indent=1))
        return
    head = ["speculator", "task", "tokens/pass", "accepted", "drafted", "gain", "95 %", "formula", "tok/s", "plain"]
    body = [
        [
            one["speculator"], one["task"], f"{one['tokens_per_pass']:.2f}", f"{one['acceptance']:.2f}",
            f"{one['drafted_per_pass']:.2f}", f"{one['gain']:.3f}x", f"{one['low']:.3f}-{one['high']:.3f}",
            f"{one['formula']:.2f}x", f"{one['tok_s']:.1f}", f"{one['plain_tok_s']:.1f}",
        ]
        for one in found
    ]  # fmt: skip
    print(f"{tokens} tokens, batch {batch}, median of {rounds} pairs; all texts are the plain ones, bit for bit")
    print(table([head, *body], set(range(2, 10))))


def compare(
    llm: Any, members: "Sequence[tuple[str, Watched]]", task: str, tokens: int, rounds: int, batch: int
) -> list[dict[str, Any]]:
    """One row a speculator. Raises EdgewiseError when a text is not the plain one."""
    from edgewise.decode.verifiers import build_verifier

    parts, engine = llm.parts, llm.parts.engine
    asked = [questions(llm, task, tokens, at) for at in range(batch)]
    target = Target(
        parts.header, parts.spec, parts.device, parts.context, batch, False, lambda header: _pieces(header)
    )  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name, _ in members}
    want: list[list[int]] | None = None
    verifier = build_verifier("auto", "some", engine.verifier.sampler)
    for at in range(rounds + 1):  # the first is not counted: prompts are cached by it
        for name, member in members:
            member.ready(target)
            engine.draft_with(member, verifier)
            if at == 1:
                member.forget()
            got, spent = decode(engine, asked)
            if want is None:
                want = got
            if got != want:
                raise EdgewiseError(f"'{name}' changed the text of task {task}. This is a bug: please report it.")
            if at:
                seconds[name].append(spent)
    made = sum(map(len, want or ()))
    plain, one = seconds[members[0][0]], members[0][1].pass_s(batch)
    rows = []
    for name, member in members[1:]:
        ratios = [slow / fast for slow, fast in zip(plain, seconds[name], strict=True)]
        low, high = interval(ratios)
        rows.append({
            "speculator": name, "task": task, "batch": batch, "tokens_per_pass": member.tokens_per_pass,
            "acceptance": member.acceptance, "drafted_per_pass": member.drafted / max(1, member.sequences),
            "gain": statistics.median(ratios), "low": low, "high": high, "formula": member.formula(one, batch),
            "tok_s": made / statistics.median(seconds[name]), "plain_tok_s": made / statistics.median(plain),
        })  # fmt: skip
    return rows


def decode(engine: Any, asked: Sequence[Request]) -> tuple[list[list[int]], float]:
    """Each request's tokens, and the seconds of all steps after the first token of each."""
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
