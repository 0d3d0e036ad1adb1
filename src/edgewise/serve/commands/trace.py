"""`edgewise trace routing`: which experts a text goes to, token by token and layer by layer, as JSON lines."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.base import BadInput, EdgewiseError, SamplingParams, Tap
from edgewise.models.api import Batch
from edgewise.serve.hub import locate
from edgewise.serve.options import Context, Prefetch, RamBudget, Residency, Threads, read_text

command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

PROMPT = "Once upon a time there was a small machine that wanted to know"


@command.callback()
def trace() -> None:
    """Writes down what a model does inside."""


@command.command()
def routing(
    model: Annotated[str, typer.Argument(help="folder, GGUF file, or user/repo of a mixture of experts")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines: the model first, then one line a token")],
    text: Annotated[Path | None, typer.Option("--text", help="a UTF-8 text to read")] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=1, help="of the text, to read")] = 128,
    write: Annotated[int | None, typer.Option("--write", min=1, help="to write then, greedily [as many]")] = None,
    context: Context = None,
    threads: Threads = None,
    ram_budget: RamBudget = None,
    residency: Residency = "",
    prefetch: Prefetch = "none",
) -> None:
    """Every token's experts, their probabilities and everybody's, and whom the next layer's router would choose on what
    enters these, by layer. `edgewise replay` asks what a cache would have held and how good such guesses are."""
    from edgewise.serve.llm import LLM

    words = PROMPT if text is None else read_text(text)
    with LLM(
        locate(model), threads=threads, ctx_size=context, max_num_seqs=1, ram_budget=ram_budget, residency=residency,
        prefetch=prefetch,
    ) as llm:  # fmt: skip
        spec = llm.parts.spec
        if not spec.experts:
            raise BadInput(f"{llm.name} has no experts, so there is no routing to trace.")
        ids = list(llm.tokenizer.encode(words))[:tokens] if llm.tokenizer is not None else list(range(3, 3 + tokens))
        watch = _Watch(llm.parts.runner.forward, spec.experts_per_token)
        watch.listen_ahead(llm.parts.model)
        llm.parts.runner.forward = watch  # type: ignore[assignment]  # it runs batches, and that is all that is asked
        llm.generate(ids, SamplingParams(max_tokens=write or tokens, temperature=0.0, ignore_eos=True))
        if not watch.tokens:
            raise EdgewiseError(f"{llm.name} computed nothing, so there is no routing to trace: a step of it failed.")
        head = {"model": llm.name, "layers": spec.layers, "experts": spec.experts, "chosen": spec.experts_per_token}
        part = out.with_name(out.name + ".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in (head, *watch.lines())), encoding="utf-8")
        part.replace(out)
    print(f"{out}: {len(watch.tokens)} tokens")


class _Watch:
    """A forward pass that is listened to: every row's experts, by layer, and whom the next layer's router would have
    chosen on what enters them."""

    def __init__(self, inner: Any, chosen: int) -> None:
        self.inner = inner
        self.chosen = chosen
        self.tokens: list[dict[str, Any]] = []
        self._first = 0

    def listen_ahead(self, model: Any) -> None:
        """Hears what every layer of experts is given, and asks the next one's router about it."""
        found: list[tuple[int, Any]] = [(at, getattr(block, "ffn", None)) for at, block in enumerate(model.layers)]
        mixtures = [(at, ffn) for at, ffn in found if hasattr(ffn, "choose") and hasattr(ffn, "mix")]
        for (at, ffn), (_, following) in itertools.pairwise(mixtures):
            ffn.mix = self._asking(at, ffn.mix, following)

    def _asking(self, layer: int, mix: Any, following: Any) -> Any:
        def ask(device: Any, x: Any, logits: Any, routing: Any) -> Any:
            guess = following.choose(device, x)[1].ids.tolist()
            for row, experts in enumerate(guess):
                self.tokens[self._first + row]["layers"][layer].append(experts)
            return mix(device, x, logits, routing)

        return ask

    def run(self, batch: Batch) -> Any:
        self._first = first = len(self.tokens)
        self.tokens += [{"id": int(token), "layers": {}} for token in batch.ids]

        def hear(tap: Tap, layer: int, value: Any) -> None:
            if tap is not Tap.GATE:
                return
            logits = np.array(value, np.float32)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            best = np.argsort(-logits, axis=1, kind="stable")[:, : self.chosen]
            for row, experts in enumerate(best):
                self.tokens[first + row]["layers"][layer] = [
                    experts.tolist(), [round(float(p), 5) for p in shares[row, experts]],
                    [round(float(p), 4) for p in shares[row]],
                ]

        return self.inner.run(replace(batch, listen=hear))

    def lines(self) -> list[dict[str, Any]]:
        return [{"token": number, **token} for number, token in enumerate(self.tokens)]
