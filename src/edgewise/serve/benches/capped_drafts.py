"""`edgewise bench capped-drafts`: a long chat with drafts, without a cap on generation memory and under one.

Paper:  SpecMemo, 2025, arXiv:2506.01986
Exact.  It measures only; every answer must be the plain one, and a cap that was exceeded fails the command.
Needs:  a model with a tokenizer, a draft model of the same vocabulary
Cost:   the chat, three times a round, on three copies of the weights
Status: kept
"""

import inspect
import json
import statistics
import textwrap
import warnings
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from edgewise.base import EdgewiseError, SamplingParams
from edgewise.serve.options import Json, Threads, human, table
from edgewise.serve.watching import interval

QUESTIONS = (
    "Now write the next method.", "What does the first loop do?", "Rename width to columns.", "Add a docstring.",
    "def wrap(self, text):", "Why is that list reversed?", "Write a test for it.",
)  # fmt: skip


def measure_capped_drafts(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, user/repo; none: embedded")] = None,
    draft: Annotated[str, typer.Option(help="a draft model of the same vocabulary; none: prompt lookup")] = "",
    gen_mem: Annotated[float, typer.Option(min=0.01, max=1, help="cap, as a share of what no cap takes")] = 0.35,
    turns: Annotated[int, typer.Option(min=1, help="of the chat")] = 20,
    first: Annotated[int, typer.Option(min=1, help="tokens of the first message: a text to talk about")] = 384,
    tokens: Annotated[int, typer.Option("-n", min=1, help="of each answer")] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    context: Annotated[int, typer.Option("-c", min=64)] = 1024,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Tokens a second of whole chats (prompts included), memory foretold and taken, by the allocators' own books:
    pages of KV that were ever used, drafts' pages, activations and logits at their most.
    """
    from edgewise.serve import hub

    path = None if model is None else hub.locate(model)
    inside = f",model={hub.locate(draft)}" if draft else ""
    common: dict[str, Any] = {"threads": threads, "ctx_size": context, "max_num_seqs": 1}
    shape = turns, first, tokens
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        plain = stack.enter_context(Talk(path, "none", **common))
        free = stack.enter_context(Talk(path, f"specmemo:cap=64GiB{inside}", **common))
        free.chat(*shape)
        cap = int(gen_mem * free.taken())
        held = stack.enter_context(Talk(path, f"specmemo:cap={cap}{inside}", **common))
        held.chat(*shape)
        want = plain.chat(*shape)[0]
        rates: dict[str, list[float]] = {"plain": [], "no cap": [], "cap": []}
        for _ in range(rounds):
            for name, talk in (("plain", plain), ("no cap", free), ("cap", held)):
                got, seconds = talk.chat(*shape)
                if got != want:
                    raise EdgewiseError(f"'{name}' changed an answer. This is a bug: please report it.")
                rates[name].append(turns * tokens / seconds)
        plan = held.plan
        worst = max(held.marks)
        if worst > cap:
            raise EdgewiseError(f"The cap of {cap} bytes was exceeded: {worst}. This is a bug: please report it.")
        bytes_of = {"plain": plain.taken(), "no cap": free.taken(), "cap": worst}
        ratios = [a / b for a, b in zip(rates["cap"], rates["no cap"], strict=True)]
        low, high = interval(ratios)
        found = {
            "cap_bytes": cap, "share": gen_mem, "predicted_bytes": plan.total, "taken_bytes": worst,
            "bytes": bytes_of, "plan": plan.words(), "uncapped_plan": free.plan.words(),
            "within": plan.total / worst - 1, "ratio": statistics.median(ratios), "low": low, "high": high,
            "tok_s": {name: statistics.median(some) for name, some in rates.items()},
            "turns_checked": len(held.marks),
        }  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1))
        return
    speeds: Any = found["tok_s"]
    body = [[name, human(bytes_of[name]), f"{speeds[name]:.1f}"] for name in speeds]
    print(table([["", "memory", "tok/s"], *body], {1, 2}))
    print(f"no cap: {found['uncapped_plan']}\ncap {human(cap)}: {found['plan']}")
    print(
        f"foretold {human(plan.total)}, taken {human(worst)} ({plan.total / worst - 1:+.1%}); after each of "
        f"{len(held.marks)} turns at or below the cap; {found['ratio']:.3f} ({low:.3f}-{high:.3f}) of the speed without"
    )


class Talk:
    """A model, and what its chats took. marks: the most bytes of generation so far, after each turn."""

    def __init__(self, path: Any, speculator: str, **options: Any) -> None:
        from edgewise.serve.llm import LLM

        self.llm = LLM(path, speculator=speculator, **options)
        parts = self.llm.parts
        parts.device.activations()  # type: ignore[attr-defined]
        self.base = parts.device.activations()  # type: ignore[attr-defined]  # what loading left there
        self.passes, self.marks = 0, list[int]()

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.llm.close()

    @property
    def plan(self) -> Any:
        return self.llm.parts.engine.speculator.plan  # type: ignore[attr-defined]

    def taken(self) -> int:
        parts = self.llm.parts
        pages: Any = parts.kv
        self.passes = max(self.passes, parts.device.activations() - self.base)  # type: ignore[attr-defined]
        drafts = getattr(parts.engine.speculator, "kv_bytes", lambda: 0)()
        return int(pages.pages.touched * pages.page_tokens * pages.token_bytes + self.passes + drafts)

    def chat(self, turns: int, first: int, tokens: int) -> tuple[list[list[int]], float]:
        """The answers, and the seconds of all turns."""
        import time

        llm = self.llm
        settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        ids = llm.tokenizer.encode(inspect.getsource(textwrap), add_special=True)[:first]
        answers: list[list[int]] = []
        spent = 0.0
        for turn in range(turns):
            ids += llm.tokenizer.encode(f"\nUser: {QUESTIONS[turn % len(QUESTIONS)]}\nAssistant:")
            begin = time.perf_counter()
            (result,) = llm.generate(ids, settings)
            spent += time.perf_counter() - begin
            answers.append(result.outputs[0].token_ids)
            ids += answers[-1]
            self.marks.append(self.taken())
        return answers, spent
