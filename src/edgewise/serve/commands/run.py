"""`edgewise run`: complete a prompt or chat, streaming; a REPL when there is a terminal and nothing to complete."""

import json
import os
import select
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.base.startup import milestone
from edgewise.serve import hub
from edgewise.serve.options import (
    CacheType,
    Context,
    Float8,
    Json,
    Neurons,
    Policy,
    Prefetch,
    RamBudget,
    Residency,
    Source,
    Speculator,
    Swap,
    Threads,
    Verifier,
    human,
    peak_rss_bytes,
    shape_of,
)

if TYPE_CHECKING:
    from edgewise.serve.session import Answer, Session

BUILTIN_TOKENS = 48
PATIENCE_S = 2.0  # for an idle pipe on standard input when nothing at all was asked for
SETTINGS = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
)  # fmt: skip


def command(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo[:FILE]; none: embedded")] = None,
    prompt: Annotated[str | None, typer.Argument(help="text; '-' reads standard input to its end")] = None,
    prompt_text: Annotated[str | None, typer.Option("--prompt", "-p", help="the prompt, with or without MODEL")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", "--n-predict", "--num-predict", min=-1, help="at most; -1: until the end"),
    ] = None,
    context: Context = None,
    threads: Threads = None,
    temperature: Annotated[
        float | None, typer.Option("--temp", "--temperature", help="0 is greedy [default: the model's, else 0.7]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off")] = None,
    min_p: Annotated[float | None, typer.Option(help="0 is off")] = None,
    seed: Annotated[int | None, typer.Option(help="makes sampling repeatable")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option("--repeat-penalty", "--repetition-penalty", help="1 is off")
    ] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="0 is off")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(help="0 is off")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="text that ends the answer; may be given again")] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="go on after the end of the text")] = False,
    json_schema: Annotated[Path | None, typer.Option(help="the answer fits the schema in this file")] = None,
    regex: Annotated[str | None, typer.Option(help="the answer matches it from beginning to end")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="the answer is this; give it again for others")] = None,
    grammar: Annotated[Path | None, typer.Option("--grammar-file", help="the answer fits this Lark or GBNF")] = None,
    kv_cache_dtype: CacheType = None,
    chat_template: Annotated[str | None, typer.Option(help="a Jinja template instead of the model's")] = None,
    chat_template_file: Annotated[Path | None, typer.Option(help="the same, from a file")] = None,
    system: Annotated[str | None, typer.Option("--system", help="system prompt of a chat")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="complete the text as it is, even with a chat template")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="insist on a chat")] = False,
    policy: Policy = "fcfs",
    swap: Swap = "none",
    speculator: Speculator = "none",
    verifier: Verifier = "auto",
    device: Annotated[str, typer.Option(help="where to compute; see `edgewise members`")] = "cpu",
    fp8: Float8 = "auto",
    ram_budget: RamBudget = None,
    residency: Residency = "",
    prefetch: Prefetch = "none",
    source: Source = "auto",
    neurons: Neurons = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="timings on standard error")] = False,
    as_json: Json = False,
) -> None:
    """Completes a prompt, or chats when the model has a chat template (--raw: never, --chat: always).

    The prompt is PROMPT, --prompt or standard input. Without any: a REPL in a terminal, else a built-in prompt.
    """
    if raw and chat:
        raise BadInput("--raw and --chat exclude each other.")
    if prompt is not None and prompt_text is not None:
        raise BadInput("The prompt is given twice: as an argument and with --prompt.")
    structured = shape_of(json_schema, regex, choice, grammar)
    path = None if model is None else _find(model)
    text = prompt_text if prompt is None else prompt
    if text == "-":
        text = sys.stdin.read()
    terminal = text is None and sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    builtin = False
    if text is None and not terminal:
        text = _piped(model is None)
        if text is None:
            text, builtin = _builtin(model), True

    milestone("arguments read")
    from edgewise.serve.llm import LLM
    from edgewise.serve.session import COMPLETION_TOKENS, Session

    milestone("imports done")

    llm = LLM(
        path, threads=threads, ctx_size=context, kv_cache_dtype=kv_cache_dtype or "auto", device=device,
        policy=policy, swap=swap, speculator=speculator, verifier=verifier, fp8=fp8, ram_budget=ram_budget,
        residency=residency, prefetch=prefetch, source=source, neurons=neurons, max_num_seqs=1,
        seed=0 if builtin else int.from_bytes(os.urandom(4), "little"),
    )  # fmt: skip
    given = locals()
    params = replace(
        llm.default_params(None),
        **{name: given[name] for name in SETTINGS if given[name] is not None},
        stop=tuple(stop or ()),
        ignore_eos=ignore_eos,
        structured_outputs=structured,
    )
    if builtin:  # a demonstration: the same text every time, one function
        params = replace(
            params,
            stop=params.stop or ("\n\n",),
            temperature=0.0 if temperature is None else params.temperature,
            max_tokens=BUILTIN_TOKENS if params.max_tokens is None else params.max_tokens,
        )
    session = Session(
        llm, params, template=_template(llm, chat_template, chat_template_file), system=system,
        chat=False if raw or builtin else True if chat else None,
    )  # fmt: skip
    if max_tokens is not None:
        session.params = replace(params, max_tokens=None if max_tokens < 0 else max_tokens)
    elif not session.chat and params.max_tokens is None:
        session.params = replace(params, max_tokens=COMPLETION_TOKENS)
    if terminal:
        from edgewise.serve.repl import Repl

        Repl(session, verbose=verbose).loop()
    else:
        assert text is not None
        _once(session, text, echo=builtin and not as_json, verbose=verbose, as_json=as_json)


def _once(session: "Session", text: str, *, echo: bool, verbose: bool, as_json: bool) -> None:
    from edgewise.serve.session import Answer

    answer, parts = Answer(), session.llm.parts
    seen = prompt = None
    rows = parts.neurons
    if rows is not None:
        print(f"edgewise: {rows.words()}", file=sys.stderr)
    elif parts.stream is not None:
        from edgewise.serve.budget import afterwards, counted, outlook
        from edgewise.serve.budget import report as memory

        seen = outlook(parts)
        print(f"edgewise: {seen.words()}", file=sys.stderr)
    if echo:
        print(text, end="", flush=True)
    milestone("ready for the prompt")
    for piece in session.ask(text, answer):
        if seen is not None and prompt is None:
            prompt = counted(parts)
        if not as_json:
            print(piece, end="", flush=True)
    found = {"memory": memory(parts, seen, prompt or counted(parts))} if seen is not None else {}
    if rows is not None:
        found = {"memory": rows.report()}
    if as_json:
        print(json.dumps(report(answer) | found, ensure_ascii=False))
    elif not answer.text.endswith("\n"):
        print()
    if verbose:
        print(timing(answer), file=sys.stderr)
    if rows is not None:
        print(f"edgewise: {rows.afterwards(answer.metrics.tok_s)}", file=sys.stderr)
    elif found:
        print(f"edgewise: {afterwards(found['memory'], answer.metrics.tok_s)}", file=sys.stderr)
    milestone("end")


def report(answer: "Answer") -> dict[str, Any]:
    """The object that --json prints; its keys are a contract."""
    return {
        "text": answer.text,
        "token_ids": answer.token_ids,
        "prompt_tokens": answer.metrics.prompt_tokens,
        "completion_tokens": answer.metrics.completion_tokens,
        "finish_reason": answer.finish_reason,
        "ttft_s": answer.metrics.ttft_s,
        "tok_s": answer.metrics.tok_s,
        "tokens_per_pass": answer.metrics.tokens_per_pass,
        "drafted": answer.metrics.drafted,
        "accepted": answer.metrics.accepted,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def timing(answer: "Answer") -> str:
    metrics = answer.metrics
    drafts = f"{metrics.tokens_per_pass:.2f} tokens a pass, {metrics.accepted} of {metrics.drafted} drafted accepted; "
    return (
        f"prompt {metrics.prompt_tokens} tokens, first token after {metrics.ttft_s:.3f} s; "
        f"{metrics.completion_tokens} tokens at {metrics.tok_s:.1f} tok/s, {answer.finish_reason}; "
        + (drafts if metrics.drafted else "")
        + f"peak memory {human(peak_rss_bytes())}"
    )


def _find(model: str) -> Path:
    """The model's path; one that is only on the hub is fetched first, saying so."""
    if hub.is_repository(model) and not hub.here(model):
        print(f"edgewise: {model} is not on this machine; pulling it.", file=sys.stderr)
        return hub.pull(model)
    return hub.locate(model)


def _piped(alone: bool) -> str | None:
    """Standard input as the prompt, or None when there is nothing in it (or, with no model named, nothing comes)."""
    if sys.stdin.isatty():
        return None
    if alone:
        try:
            ready = select.select([sys.stdin], [], [], PATIENCE_S)[0]
        except (OSError, ValueError):  # not a file that can be waited for
            ready = [sys.stdin]
        if not ready:
            print("edgewise: nothing comes on standard input; give '-' as the prompt to wait for it.", file=sys.stderr)
            return None
    text = sys.stdin.read()
    return text or None


def _builtin(model: str | None) -> str:
    if model is not None:
        raise BadInput("There is no prompt: give one after the model, with --prompt, or on standard input.")
    from edgewise.embedded import PROMPT

    return PROMPT


def _template(llm: Any, text: str | None, file: Path | None) -> Any:
    if file is not None:
        if text is not None:
            raise BadInput("--chat-template and --chat-template-file exclude each other.")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"The chat template {file} cannot be read: {error}.") from error
    if text is None:
        return None
    from edgewise.text.chat import JinjaChatTemplate

    tokenizer, own = llm.tokenizer, llm.parts.template
    strings = dict(own.strings) if own is not None else {}
    if tokenizer.bos is not None:
        strings.setdefault("bos_token", tokenizer.piece(tokenizer.bos))
    if tokenizer.eos:
        strings.setdefault("eos_token", tokenizer.piece(min(tokenizer.eos)))
    return JinjaChatTemplate({"default": text}, strings, str(file or "--chat-template"))
