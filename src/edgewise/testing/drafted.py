"""Text identity under speculation: whoever drafts, whatever else happens, greedy tokens are those of plain decoding.

`python -m edgewise.testing.identity --speculators all --tokens 10000` decodes prompts of code, prose and noise with
each member in each circumstance, and counts the tokens that differ from one plain sequence alone. Members draft here
also where it does not pay: their gates are opened. `--control` adds a verifier that believes drafts; it must be found
out.
"""

import argparse
import inspect
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pydoc_data.topics import topics
from typing import Any, ClassVar

import numpy as np

from edgewise.base import BadInput, Request, SamplingParams, StructuredOutputsParams
from edgewise.decode.api import Accepted, Draft, LogitsRule, Room, SeqView, Speculator, Target, Verifier
from edgewise.decode.guessing import AUTO, USUAL
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import build_verifier
from edgewise.decode.walking import walk
from edgewise.embedded import embedded_draft
from edgewise.engine.api import StepCost, Work
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners.text import TextRunner
from edgewise.kernels.api import Floats
from edgewise.kv.paged import PagedCache
from edgewise.kv.swap import SwapFile
from edgewise.kv.types import token_bytes

PLAIN = "none"
CONTROL = "control"
KINDS = ("code", "prose", "noise")
PROMPT, ANSWER = 160, 224  # tokens
PAGE = 16
SLOTS = 2  # layers in memory where the others come from disk
CAP = "256MiB"  # of generation, for whoever keeps to one: enough to draft
LONG = {  # a JSON text that may not end early
    "type": "array", "minItems": 64, "items": {
        "type": "object", "required": ["name", "kind", "on"], "additionalProperties": False, "properties": {
            "name": {"type": "string", "maxLength": 12}, "kind": {"enum": ["red", "green", "blue"]},
            "on": {"type": "boolean"},
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Circumstance:
    """sequences: at once. rows: of a step, so chunks of prompts have less. tight: pages for fewer than run at once, the
    rest waits in a swap file. grammar: JSON of a schema. streamed: layers of the target come from the disk."""

    sequences: int = 1
    rows: int = 512
    tight: bool = False
    grammar: bool = False
    streamed: bool = False


CIRCUMSTANCES = {
    "alone": Circumstance(),
    "batch": Circumstance(8),
    "chunked": Circumstance(8, rows=24),
    "swapped": Circumstance(8, tight=True),
    "grammar": Circumstance(4, grammar=True),
    "together": Circumstance(8, rows=40, tight=True, grammar=True),
    "streamed": Circumstance(4, streamed=True),
}


@dataclass
class Outcome:
    """Of one member in one circumstance. trees: passes with branches. swapped: sequences that came back from disk."""

    member: str
    circumstance: str
    tokens: int = 0
    differ: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    trees: int = 0
    swapped: int = 0
    seconds: float = 0.0
    error: str = ""


class Believing:
    """The control: keeps the first branch of every draft unseen."""

    odds: ClassVar[bool] = False

    def accept(
        self, view: SeqView, draft: Draft, logits: Floats, rules: Sequence[LogitsRule], best: Sequence[int]
    ) -> Accepted:
        def choose(row: Floats, likeliest: int, position: int, children: Sequence[int]) -> int:
            return draft.tokens[children[0]] if children else int(row.argmax())

        return walk(view, draft, logits, rules, best, choose)


class Counting(TextRunner):
    """Counts passes that have branches."""

    trees = 0

    def step(self, work: Sequence[Work]) -> Floats:
        self.trees += any(piece.branches for piece in work)
        return super().step(work)


def everyone(names: str = "all") -> dict[str, str]:
    """Catalog names → with settings; `all`, or names with commas between them. Each drafts even where it does not pay,
    and has the package's draft model where it takes one, and room enough where it keeps to a cap."""
    found = {}
    for name in [name for name in SPECULATORS if name != PLAIN] if names == "all" else names.split(","):
        takes = inspect.signature(SPECULATORS.load(name)).parameters
        given: dict[str, Any] = {"model": embedded_draft(), "cap": CAP, "gate": False, "gain": 1}
        if "nodes" in takes and takes["nodes"].default == AUTO:
            given["nodes"] = USUAL
        settings = ",".join(f"{key}={value}" for key, value in given.items() if key in takes)
        found[name] = f"{name}:{settings}" if settings else name
    return found


def asked(llm: Any, at: int, grammar: bool = False, answer: int = ANSWER) -> Request:
    """The at-th request: kinds by turns; of those without a grammar every other one may repeat itself less."""
    kind, draw = KINDS[at % len(KINDS)], at // len(KINDS)
    if kind == "noise":
        ids = np.random.default_rng(at).integers(0, llm.parts.spec.vocab, PROMPT).tolist()
    else:
        source = "".join(topics.values()) if kind == "prose" else inspect.getsource(argparse)
        begin = 1009 * draw % (len(source) - 8 * PROMPT)
        ids = llm.tokenizer.encode(source[begin : begin + 8 * PROMPT], add_special=True)[: PROMPT - 5 * (at % 7)]
    if grammar:
        wanted = StructuredOutputsParams(json=LONG)
        return Request(tuple(ids), SamplingParams(temperature=0, max_tokens=answer, structured_outputs=wanted))
    penalty = 1.15 if draw % 2 else 1.0
    return Request(
        tuple(ids), SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True, repetition_penalty=penalty)
    )


def play(
    llm: Any, speculator: Speculator, verifier: Verifier, around: Circumstance, requests: Sequence[Request],
    outcome: Outcome,
) -> list[list[int]]:  # fmt: skip
    """The tokens of each request; the engine is made for this. Adds to outcome what took place."""
    parts = llm.parts
    spec, longest = parts.spec, max(len(one.tokens) + (one.params.max_tokens or 0) for one in requests)
    room = Room(around.rows, 0, PAGE, PAGE * token_bytes(spec.layers, spec.kv_heads, spec.head_dim, parts.kv_dtype))
    target = Target(
        parts.header, spec, parts.device, min(parts.context, longest + PAGE), around.sequences, verifier.odds, _pieces,
        room,
    )  # fmt: skip
    speculator.prepare(target)
    each = -(-longest // PAGE) + 2
    pages = (2 * around.sequences + 4) * each
    if around.tight:  # three prompts fit, and one whole sequence, but not three
        prompt = max(len(one.tokens) for one in requests) // PAGE + 1
        pages = 2 * prompt + each
    cache = PagedCache(
        parts.device, spec.layers, spec.kv_heads, spec.head_dim, min(pages, room.pages or pages), PAGE, parts.kv_dtype
    )
    cache.pages.reuse = not around.tight  # else pages would be found where they were left, and nothing be fetched
    swap = SwapFile() if around.tight else None
    if swap is not None:
        swap._rate = 1e15  # always cheaper than computing again
    runner = Counting(parts.model, cache, parts.device)
    engine = Engine(
        runner, cache, POLICIES.build("fcfs"), speculator, verifier, vocab=spec.vocab, context=parts.context,
        ends=parts.engine.ends, rows=room.rows, sequences=around.sequences, swap=swap, cost=StepCost(1.0, 1.0, 1.0),
        pieces=llm.tokenizer.token_bytes,
    )  # fmt: skip
    if parts.stream is not None:
        parts.stream.waits = target.waits
    begin = time.perf_counter()
    order = [engine.add(request) for request in requests]
    got: dict[str, list[int]] = {name: [] for name in order}
    while engine.has_work():
        for event in engine.step():
            outcome.error = outcome.error or event.error or ""  # the tokens that are missing will be counted
            got[event.request_id] += event.tokens
            outcome.drafted += event.drafted
            outcome.accepted += event.accepted
    outcome.seconds += time.perf_counter() - begin
    outcome.passes += engine.steps
    outcome.trees += runner.trees
    outcome.swapped += engine.swapped_in
    assert cache.free_tokens() == engine.capacity, f"{outcome.member}, {outcome.circumstance}: pages leaked"
    if swap is not None:
        swap.close()
    return [got[name] for name in order]


class Plain:
    """Answers of one sequence alone without drafts, each computed once."""

    def __init__(self, llm: Any) -> None:
        self.llm, self._known = llm, dict[tuple[int, bool, int], list[int]]()

    def answers(self, count: int, grammar: bool, answer: int) -> list[list[int]]:
        keys = [(at, grammar, answer) for at in range(count)]
        missing = [key for key in keys if key not in self._known]
        if missing:
            requests = [asked(self.llm, at, grammar, answer) for at, *_ in missing]
            none = SPECULATORS.build(PLAIN)
            verifier = build_verifier("auto", PLAIN, self.llm.parts.engine.verifier.sampler)
            found = play(self.llm, none, verifier, Circumstance(), requests, Outcome(PLAIN, "alone"))
            self._known.update(zip(missing, found, strict=True))
        return [self._known[key] for key in keys]


def compare(
    members: dict[str, str], names: Sequence[str], tokens: int, model: str | None = None, threads: int | None = None,
    control: bool = False, answer: int = ANSWER,
) -> Iterator[Outcome]:  # fmt: skip
    """One outcome for each member in each circumstance, in turn. Raises AssertionError when a page is lost."""
    from edgewise.serve.llm import LLM

    options: dict[str, Any] = {"threads": threads, "max_num_seqs": 1}
    with LLM(model, **options) as llm:
        count, plain = -(-tokens // answer), Plain(llm)
        for name in names:
            around = CIRCUMSTANCES[name]
            want = plain.answers(count, around.grammar, answer)
            requests = [asked(llm, at, around.grammar, answer) for at in range(count)]
            streamed: Any = LLM(model, ram_budget="1024GiB", **options) if around.streamed else nullcontext(llm)
            with streamed as used:
                if around.streamed:
                    used.parts.stream.close()
                    used.parts.stream.open(SLOTS)
                for member, text in members.items():
                    yield _one(used, member, name, SPECULATORS.build(text), requests, want)
                if control:
                    yield _one(used, CONTROL, name, SPECULATORS.build(next(iter(members.values()))), requests, want)


def _one(
    llm: Any, member: str, name: str, speculator: Speculator, requests: Sequence[Request], want: list[list[int]]
) -> Outcome:
    outcome = Outcome(member, name)
    believing = member == CONTROL
    verifier = Believing() if believing else build_verifier("auto", member, llm.parts.engine.verifier.sampler)
    got = play(llm, speculator, verifier, CIRCUMSTANCES[name], requests, outcome)
    for mine, right in zip(got, want, strict=True):
        outcome.tokens += len(right)
        outcome.differ += sum(a != b for a, b in zip(mine, right, strict=False)) + abs(len(mine) - len(right))
    return outcome


def report(
    speculators: str, names: str, tokens: int, model: str | None, threads: int | None, control: bool, as_json: bool
) -> int:
    """Prints a table as it grows; 1 when something differs that must not, or a control does not."""
    chosen = list(CIRCUMSTANCES) if names == "all" else names.split(",")
    for name in chosen:
        if name not in CIRCUMSTANCES:
            raise BadInput(f"There is no circumstance '{name}'. Known: {', '.join(CIRCUMSTANCES)}, or all.")
    line = "{:<10} {:<9} {:>7} {:>6} {:>7} {:>8} {:>8} {:>6} {:>7} {:>5.0f} s".format
    if not as_json:
        print(line("member", "", "tokens", "differ", "passes", "drafted", "accepted", "trees", "swapped", 0)[:-4])
    found = []
    for one in compare(everyone(speculators), chosen, tokens, model, threads, control):
        found.append(one)
        if not as_json:
            print(line(*list(asdict(one).values())[:-1]), flush=True)
    wrong = [one for one in found if (one.differ > 0) != (one.member == CONTROL)]
    idle = sorted({one.member for one in found} - {one.member for one in found if one.accepted})
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        differ = sum(one.differ for one in found if one.member != CONTROL)
        print(f"{differ} of {sum(one.tokens for one in found if one.member != CONTROL)} tokens differ")
    for one in found:
        if one.error and one.member != CONTROL:
            print(f"{one.member}, {one.circumstance}: {one.error}", file=sys.stderr)
    if idle:
        print(f"Nothing was drafted that came true: {', '.join(idle)}", file=sys.stderr)
    return int(bool(wrong or idle))


def _pieces(header: Any) -> Any:
    from edgewise.text import pieces_of

    return pieces_of(header)
