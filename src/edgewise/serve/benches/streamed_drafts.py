"""`edgewise bench streamed-drafts`: a target whose layers come from the disk, with and without drafts.

Paper:  Xu et al., LLMCad, 2023, arXiv:2309.04255
Exact.  Every run's tokens must equal the plain run's, or the command fails.
Needs:  a model on a real disk (best laid out by `convert --layout streamed`), a draft model of the same vocabulary
Cost:   rounds x lines x tasks x tokens, decoded, each pass reading what the cap leaves out
Status: kept
"""

import json
import statistics
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, EdgewiseError
from edgewise.serve.options import Json, Threads, human, table
from edgewise.serve.watching import Watched, decode, interval, questions, targeted


def measure_streamed_drafts(
    model: Annotated[str, typer.Argument(help="folder, GGUF file, or user/repo")],
    draft: Annotated[str, typer.Option(help="a draft model of the same vocabulary")],
    mem_cap: Annotated[float, typer.Option(min=0.01, max=1, help="share of the weights in memory, with drafts")] = 0.4,
    fixed: Annotated[str, typer.Option(help="lengths of fixed drafts to compare with")] = "4,8",
    tasks: Annotated[str, typer.Option(help="of edit, code, prose, noise")] = "code,prose",
    tokens: Annotated[int, typer.Option("-n", min=8, help="decoded in each run")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="by turns")] = 3,
    context: Annotated[int, typer.Option("-c", min=64)] = 1024,
    settings: Annotated[str, typer.Option(help="of llmcad, as in nodes=16,width=4")] = "",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Tokens a second, tokens a pass and bytes read for each token: plain, drafts of fixed length, llmcad's trees, and
    these without drafting while weights are awaited. One process, one copy of what is in memory, by turns, with another
    text each round. Beside the measured gain stands what tokens a pass and the times of passes and of drafting make.
    """
    from edgewise.decode.speculators import SPECULATORS
    from edgewise.decode.verifiers import build_verifier
    from edgewise.serve import hub
    from edgewise.serve.llm import LLM

    path = hub.locate(draft)
    more = f",{settings}" if settings else ""
    names = {
        "plain": "none", **{f"fixed {n}": f"draft:model={path},depth={n}" for n in fixed.split(",") if n},
        "tree": f"llmcad:model={path}{more}", "tree, not ahead": f"llmcad:model={path},ahead=0{more}",
    }  # fmt: skip
    found: list[dict[str, Any]] = []
    with LLM(hub.locate(model), threads=threads, max_num_seqs=1, ctx_size=context, ram_budget="1024GiB") as llm:
        stream, engine = llm.parts.stream, llm.parts.engine
        assert stream is not None
        target = targeted(llm, 1)
        members = {name: Watched(SPECULATORS.build(text)) for name, text in names.items()}
        waits: dict[str, list[Any]] = {}
        held = 0
        for name, member in members.items():
            held = max(held, member.prepare(target))
            waits[name] = target.waits[:]
            target.waits.clear()
        whole = stream.needs(0, 0)
        total = whole.slot * whole.bundles + llm.parts.model.head_weight.nbytes  # type: ignore[attr-defined]
        stays = llm.parts.model.head_weight.nbytes  # type: ignore[attr-defined]
        slots = int(mem_cap * total - stays - held) // whole.slot
        if slots < 1:
            raise BadInput(f"A cap of {human(mem_cap * total)} holds no layer of {human(whole.slot)}. Give more.")
        stream.close()
        stream.open(slots)
        stream.waits = []
        verifier = build_verifier("auto", "some", engine.verifier.sampler)  # type: ignore[attr-defined]
        for task in tasks.split(","):
            found += compare(llm, members, waits, verifier, tokens, task, rounds)
    for row in found:
        row |= {"slots": slots, "bundles": whole.bundles, "cap_bytes": int(mem_cap * total), "held_bytes":
                stays + slots * whole.slot + held}  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{slots} of {whole.bundles} layers of {human(whole.slot)} in memory, {human(found[0]['held_bytes'])} with "
        f"drafts of {human(total)}; {tokens} tokens, medians of {rounds}; all texts are the plain ones, bit for bit"
    )
    head = ["", "task", "tok/s", "beside plain", "95 %", "predicted", "tokens/pass", "rows", "ms/pass", "waiting",
            "drafting", "read/token", "passes ahead"]  # fmt: skip
    body = [
        [one["name"], one["task"], f"{one['tok_s']:.2f}", f"{one['gain']:.2f}x", f"{one['low']:.2f}-{one['high']:.2f}",
         f"{one['predicted']:.2f}x", f"{one['tokens_per_pass']:.2f}", f"{one['rows']:.0f}", f"{one['pass_ms']:.0f}",
         f"{one['waited_ms']:.0f}", f"{one['draft_ms']:.1f}", human(one["bytes_token"]), str(one["ahead"])]
        for one in found
    ]  # fmt: skip
    print(table([head, *body], set(range(2, len(head)))))
    print("predicted: tokens/pass x plain pass / (pass + drafting); waiting: of the pass; drafting: before it, in ms")


def compare(
    llm: Any, members: dict[str, Watched], waits: dict[str, list[Any]], verifier: Any, tokens: int, task: str,
    rounds: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a line. Raises EdgewiseError when a text is not the plain one."""
    engine, stream = llm.parts.engine, llm.parts.stream
    seconds: dict[str, list[float]] = {name: [] for name in members}
    read, waited = dict.fromkeys(members, 0.0), dict.fromkeys(members, 0.0)
    counts, made = stream.running.counts, 0
    for at in range(rounds + 1):  # the first is not counted: thresholds settle
        want: list[list[int]] = []
        for name, member in members.items():
            engine.draft_with(member, verifier)
            stream.waits = waits[name]
            if at == 1:
                member.forget()
            before: list[float] = []

            def begun(before: list[float] = before) -> None:
                before.extend((counts.bytes_read, counts.waited_s))

            got, spent = decode(engine, [questions(llm, task, tokens, at)], begun)
            want = want or got
            if got != want:
                raise EdgewiseError(f"'{name}' changed the text of task {task}. This is a bug: please report it.")
            if at:
                seconds[name].append(spent)
                read[name] += counts.bytes_read - before[0]
                waited[name] += counts.waited_s - before[1]
        made += sum(len(one) - 1 for one in want) if at else 0
    plain = next(iter(members.values())).mean()[1]
    rows = []
    for name, member in members.items():
        ratios = [slow / fast for slow, fast in zip(seconds["plain"], seconds[name], strict=True)]
        low, high = interval(ratios)
        some, pass_s, draft_s = member.mean()
        each = member.tokens_per_pass
        rows.append({
            "name": name, "task": task, "tok_s": made / sum(seconds[name]), "low": low, "high": high,
            "gain": statistics.median(ratios), "tokens_per_pass": each, "seconds": seconds[name],
            "bytes_token": read[name] / made, "ahead": getattr(member.inner, "passes_ahead", 0), "rows": some,
            "pass_ms": 1e3 * pass_s, "draft_ms": 1e3 * draft_s, "predicted": each * plain / (pass_s + draft_s),
            "waited_ms": 1e3 * waited[name] / max(1, len(member.passes)),
        })  # fmt: skip
    return rows
