"""`edgewise bench structured`: whether 200 schemas give 200 answers that fit, and what a grammar costs of a step.

Paper:  https://github.com/guidance-ai/llguidance; the schemas have the shapes of public JSON-Schema test suites
Exact.  It measures only.
Needs:  jsonschema for the first half
Cost:   seconds to a minute
Status: kept
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, Request, SamplingParams, StructuredOutputsParams
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.kernels.api import Floats
from edgewise.serve.options import Json, Threads, table

MOST = 400  # tokens of an answer


def measure_structured(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    schemas: Annotated[int, typer.Option(min=0, help="how many of the 200 to answer; 0 skips this half")] = 200,
    steps: Annotated[int, typer.Option(min=0, help="steps of the timed half; 0 skips it")] = 120,
    sequences: Annotated[list[int] | None, typer.Option("--sequences", "-s", help="batches to time [1, 8]")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """valid: answers that jsonschema takes; cut: those that max_tokens ended. mask: making and applying the mask of one
    sequence; share: of a step's time, all its sequences together; step_ratio: to steps without a grammar, in turns."""
    from edgewise.embedded import embedded_model
    from edgewise.serve.hub import locate
    from edgewise.serve.llm import LLM

    path = embedded_model() if model is None else locate(model)
    most = max(sequences or [1, 8])
    with LLM(path, threads=threads, max_num_seqs=max(16, most)) as llm:
        report: dict[str, Any] = {"model": llm.name, "vocab": llm.parts.spec.vocab}
        if schemas:
            report |= answered(llm, schemas)
        rows = [timed(llm, count, steps) for count in sequences or [1, 8]] if steps else []
    if as_json:
        print(json.dumps([{**report, "masks": rows}], indent=1))
        return
    print(table([["what", "value"], *([name, str(value)] for name, value in report.items())], {1}))
    if rows:
        head = list(rows[0])
        print(table([head, *([_shown(row[name]) for name in head] for row in rows)], set(range(len(head)))))


def answered(llm: Any, count: int) -> dict[str, Any]:
    """One answer to each schema, drawn at temperature 1."""
    try:
        import jsonschema
    except ModuleNotFoundError:
        raise BadInput("Checking the answers needs the package 'jsonschema': pip install jsonschema.") from None
    from edgewise.testing.schemas import SCHEMAS

    chosen = [SCHEMAS[at * len(SCHEMAS) // count] for at in range(min(count, len(SCHEMAS)))]
    wanted = [StructuredOutputsParams(json=schema) for _, schema in chosen]
    hot = SamplingParams(temperature=1.0, max_tokens=MOST)
    settings = [replace(hot, seed=at, structured_outputs=one) for at, one in enumerate(wanted)]
    valid = 0
    cut: list[str] = []
    wrong: list[str] = []
    checks = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for (group, schema), result in zip(chosen, llm.generate(["x = "] * len(chosen), settings), strict=True):
        (out,) = result.outputs
        said = f"{group}: {json.dumps(schema, ensure_ascii=False)[:90]} gave {out.text[:90]!r} {out.error or ''}"
        if out.finish_reason == "length":
            cut.append(said)
            continue
        try:
            jsonschema.Draft202012Validator(schema, format_checker=checks).validate(json.loads(out.text))
            valid += 1
        except (ValueError, jsonschema.ValidationError):
            wrong.append(said)
    return {"schemas": len(chosen), "valid": valid, "cut": cut, "wrong": wrong}


class _Timed:
    """A rule and the time it takes."""

    def __init__(self, inner: LogitsRule, spent: list[float]) -> None:
        self._inner, self._spent = inner, spent

    def apply(self, seq: SeqView, logits: Floats) -> Floats:
        begin = time.perf_counter()
        row = self._inner.apply(seq, logits)
        self._spent.append(time.perf_counter() - begin)
        return row


def timed(llm: Any, sequences: int, steps: int) -> dict[str, Any]:
    """Two groups of sequences, one held to a schema and one free, decode in turns."""
    from edgewise.decode.rules import rules_for
    from edgewise.testing.schemas import GROUPS, arr

    engine = llm.parts.engine
    prompt = tuple(llm.tokenizer.encode("x = ", add_special=True))
    free = SamplingParams(temperature=0.0, max_tokens=steps, ignore_eos=True)
    wanted = [StructuredOutputsParams(json=arr(schema, 40, 40)) for schema in GROUPS["real"]]
    spent: list[float] = []
    held_s: list[float] = []
    free_s: list[float] = []
    shares: list[float] = []

    def rule(at: int) -> Callable[[], LogitsRule]:
        held = SamplingParams(structured_outputs=wanted[at % len(wanted)])
        return lambda: _Timed(rules_for(held, (), engine.grammars)[0], spent)

    for at in range(min(sequences, len(wanted))):
        engine.grammars.matcher(wanted[at])
    for turn in range(6):
        constrained = bool(turn % 2)
        for at in range(sequences):
            extra: dict[str, Sequence[Any]] = {"rules": (rule(at + turn),)} if constrained else {}
            settings = SamplingParams(temperature=1.0, seed=at, max_tokens=steps) if constrained else free
            engine.add(Request(prompt, settings, f"{turn}-{at}", extra=extra))
        engine.step()  # the prompts
        while engine.has_work() and engine.counts()[0] == sequences:
            before = len(spent)
            begin = time.perf_counter()
            engine.step()
            took = time.perf_counter() - begin
            if turn > 1:  # the first of each kind warms up
                (held_s if constrained else free_s).append(took)
                if constrained:
                    shares.append(sum(spent[before:]) / took)
        while engine.has_work():
            engine.step()
    ordered = sorted(spent)
    return {
        "sequences": sequences, "steps": len(held_s), "mask_us_median": statistics.median(spent) * 1e6,
        "mask_us_p99": ordered[len(ordered) * 99 // 100] * 1e6, "mask_us_max": ordered[-1] * 1e6,
        "step_ms": statistics.median(held_s) * 1e3, "share_median": statistics.median(shares),
        "share_mean": statistics.fmean(shares), "step_ratio": statistics.median(held_s) / statistics.median(free_s),
    }  # fmt: skip


def _shown(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
