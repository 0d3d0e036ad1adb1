"""Flags that several verbs share, with every alias people know them by (spec: llama.cpp, vLLM, Ollama), and formats."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, StructuredOutputsParams

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
Threads = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, help="threads [default: the CPUs this process may use]")
]
Context = Annotated[
    int | None,
    typer.Option("--ctx-size", "-c", "--max-model-len", "--num-ctx", min=0, help="context, tokens; 0: the model's own"),
]
CacheType = Annotated[
    str | None,
    typer.Option("--kv-cache-dtype", "-ctk", "--cache-type-k", help="of the KV cache: auto, f16, bf16, f32, int8"),
]
Policy = Annotated[
    str, typer.Option("--policy", help="who is computed when: fcfs, auto, priority, …; see `edgewise members`")
]
Swap = Annotated[
    str,
    typer.Option("--swap", metavar="DIR|SIZE", help="where KV pages of the preempted wait: none, auto, DIR, 4GiB, …"),
]
PrefixCache = Annotated[
    str,
    typer.Option("--prefix-cache", metavar="DIR[:SIZE]", help="where known prefixes outlive the server; SIZE: 8GiB"),
]
Speculator = Annotated[
    str, typer.Option(help="who drafts tokens, NAME[:key=value,...]; see `edgewise members`", metavar="NAME[:...]")
]
Verifier = Annotated[
    str, typer.Option(help="who checks drafts; auto: the same text as without", metavar="NAME[:...]")
]
Float8 = Annotated[str, typer.Option("--fp8", help="compute FP8 weights as bf16 (exact) or int8; auto: as measured")]
RamBudget = Annotated[
    str | None,
    typer.Option("--ram-budget", help="all memory of the process: 2GiB, auto (what is free); the rest stays on disk"),
]
Residency = Annotated[str, typer.Option("--residency", help="with --ram-budget: who stays; see `edgewise members`")]
Source = Annotated[str, typer.Option("--source", help="with --ram-budget: how files are read; auto: as measured")]
Neurons = Annotated[
    str, typer.Option("--neurons", help="of a model laid out by neurons, who is computed: gate, predictor, all")
]
Prefetch = Annotated[str, typer.Option("--prefetch", help="with --ram-budget: what is read before it is asked for")]


def human(nbytes: float) -> str:
    """Bytes as people say them, binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def read_text(path: Path) -> str:
    """A text file the user named. Raises BadInput when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start}); convert it first.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


def shape_of(
    json_schema: Path | None, regex: str | None, choice: Sequence[str] | None, grammar: Path | None
) -> StructuredOutputsParams | None:
    """What the flags say an answer has to look like. Raises BadInput when they are several."""
    given: dict[str, Any] = {
        "json": None if json_schema is None else read_text(json_schema), "regex": regex,
        "choice": list(choice) if choice else None, "grammar": None if grammar is None else read_text(grammar),
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise BadInput("--json-schema, --regex, --choice and --grammar-file exclude each other.")
    return StructuredOutputsParams(**given) if given else None


def table(rows: list[list[str]], right: Collection[int] = ()) -> str:
    """Plain aligned columns; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def peak_rss_bytes() -> int:
    """The most memory this process ever held resident."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def split_members(text: str) -> list[str]:
    """`a,b:x=1,y=2,c` → a · b:x=1,y=2 · c: what holds a `=` and no `:` goes on with the member before it."""
    names: list[str] = []
    for part in filter(None, text.split(",")):
        if names and "=" in part and ":" not in part.partition("=")[0]:
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names
