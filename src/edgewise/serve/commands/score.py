"""`edgewise score`: how well a model predicts a text, and how far a second model's predictions are from it."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.decode.scoring import Sums, Window, framed, perplexity, tally, windows
from edgewise.serve.hub import locate
from edgewise.serve.options import CacheType, Context, Float8, Json, Threads, read_text

if TYPE_CHECKING:
    from edgewise.serve.llm import LLM


def command(
    model: Annotated[str, typer.Argument(help="folder, GGUF file, or user/repo from the cache")],
    text: Annotated[Path, typer.Option("--text", "-f", help="a UTF-8 text file")],
    against: Annotated[str | None, typer.Option("--against", help="a second model with the same tokens")] = None,
    context: Context = None,
    stride: Annotated[int | None, typer.Option(min=1, help="tokens between windows [default: half of one]")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="score at most so many tokens; 0: all")] = 0,
    threads: Threads = None,
    kv_cache_dtype: CacheType = None,
    device: Annotated[str, typer.Option(help="where to compute; see `edgewise members`")] = "cpu",
    fp8: Float8 = "auto",
    as_json: Json = False,
) -> None:
    """Perplexity and bits per byte of a text; with --against: mean KL divergence and top-1 agreement as well.

    Windows of the context length (--ctx-size; the default is 512 or the model's, whichever is less) move by --stride
    tokens. Each begins with BOS where the model has one, and only tokens no window scored before count, so every token
    after the first is scored once, with at least a window less a stride of context behind it, where the text has it.
    """
    from edgewise.serve.llm import LLM

    words = read_text(text)
    options: dict[str, Any] = {"threads": threads, "device": device, "kv_cache_dtype": kv_cache_dtype or "auto"}
    first = LLM(locate(model), max_num_seqs=1, ctx_size=context, fp8=fp8, **options)
    tokens = first.tokenize(words)
    second = None
    if against is not None:
        second = LLM(locate(against), max_num_seqs=1, ctx_size=first.context, **options)
        if second.tokenize(words) != tokens:
            raise BadInput(f"{second.name} splits this text into other tokens than {first.name}; they do not compare.")
    if limit:
        tokens = tokens[: limit + 1]
    size = first.context if context is not None else min(first.context, 512)
    step = stride or max(1, size // 2)
    if len(tokens) < 2:
        raise BadInput(f"{text} has {len(tokens)} tokens; at least two are needed.")
    if step >= size:
        raise BadInput(f"The stride of {step} is not below the window of {size} tokens; text would be skipped.")
    sums = Sums()
    for window in windows(len(tokens), size - 1, step):
        _score(first, second, tokens, window, sums)
        if sys.stderr.isatty():
            done = f"\r{sums.tokens}/{len(tokens) - 1} tokens, perplexity {sums.perplexity:.4f}"
            print(done, end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    scored_bytes = len(first.detokenize(tokens[1:]).encode())
    facts = report(sums, first.name, second.name if second else None, scored_bytes, size, step)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<20} {value:.6g}" if isinstance(value, float) else f"{name:<20} {value}")


def report(
    sums: Sums, model: str, other: str | None, nbytes: int, size: int, stride: int
) -> dict[str, Any]:
    """The object that --json prints."""
    facts: dict[str, Any] = {
        "model": model,
        "tokens": sums.tokens,
        "ctx_size": size,
        "stride": stride,
        "perplexity": sums.perplexity,
        "bits_per_byte": sums.nats / math.log(2) / nbytes if nbytes else None,
    }
    if other is not None:
        facts |= {
            "against": other,
            "against_perplexity": perplexity(sums.other_nats, sums.tokens),
            "mean_kl": sums.kl / sums.tokens,
            "top1_agreement": sums.agree / sums.tokens,
        }
    return facts


def _score(first: "LLM", second: "LLM | None", tokens: Sequence[int], window: Window, to: Sums) -> None:
    bos = first.tokenizer.bos if first.tokenizer.add_bos else None
    ids, counted = framed(tokens, window, bos)
    both = [first.logits_chunks(ids)] + ([second.logits_chunks(ids)] if second else [])
    tally(zip(*both, strict=True), ids, counted, to)
