"""`edgewise bench speculation`: tokens a pass, acceptance and speed-up of drafting, beside a formula.

Paper:  Leviathan et al., 2023, arXiv:2211.17192 (the formula: (1 - a^(g+1)) / ((1 - a) (c g + T(g+1)/T(1))))
Exact.  Every run's tokens must equal the plain run's, or the command fails.
Needs:  a model with a tokenizer; --draft for the draft model
Cost:   rounds x tokens x (speculators + 1) x tasks, decoded
Status: kept
"""

import json
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, EdgewiseError
from edgewise.serve.options import Json, Threads, split_members, table
from edgewise.serve.watching import NOISE, Noise, Watched, decode, interval, questions, targeted


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

    engine = llm.parts.engine
    asked = [questions(llm, task, tokens, at) for at in range(batch)]
    target = targeted(llm, batch)
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
