"""`edgewise check …`: properties proven on a model, by equality of bits. `invariance` is law 1."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import typer

from edgewise.assemble import Assembly, assemble
from edgewise.base import Request, SamplingParams, SeqId
from edgewise.embedded import embedded_model
from edgewise.engine.api import Runner, Work
from edgewise.engine.runners import RUNNERS
from edgewise.kernels.api import Floats
from edgewise.kernels.devices import cpu
from edgewise.kv import CACHES
from edgewise.kv.api import KVCache
from edgewise.serve.options import Json, table

command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

BATCHES = (1, 2, 7, 16)
CHUNKS = (1, 16, 64, 0)  # 0: all at once
PAGES = (16, 32, 64)
THREADS = (1, 2)


@command.callback()
def _group() -> None:
    """Prove properties on a model."""


@dataclass(frozen=True)
class Case:
    """One way to compute the same logits. seed: of the neighbours' tokens and lengths."""

    threads: int
    page_tokens: int
    chunk: int
    batch: int
    seed: int


@dataclass(frozen=True)
class Difference:
    case: Case
    row: int
    largest: float
    rows: int


@command.command()
def invariance(
    model: Annotated[str | None, typer.Argument(help="as for run; none: the embedded one")] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=2, help="length of the sequence")] = 80,
    device: Annotated[str, typer.Option("--device", help="cpu or reference")] = "cpu",
    kv_cache_dtype: Annotated[str, typer.Option("--kv-cache-dtype", "-ctk", help="type of the KV cache")] = "auto",
    as_json: Json = False,
) -> None:
    """Logits of one sequence, bit for bit, whatever the batch, chunk, page size, threads and neighbours."""
    report: dict[str, Any] = {}
    base: Floats | None = None
    different: Difference | None = None
    done = 0
    for threads in THREADS:
        parts = assemble(
            embedded_model() if model is None else model, device=device, threads=threads, max_num_seqs=1,
            kv_cache_dtype=kv_cache_dtype,
        )  # fmt: skip
        count = min(tokens, parts.context)
        report = {
            "model": parts.header.name, "device": parts.device.info.name, "isa": parts.device.info.isa,
            "kv": parts.kv_dtype, "tokens": count, "batches": BATCHES, "chunks": [c or "all" for c in CHUNKS],
            "page_tokens": PAGES, "threads": THREADS,
        }  # fmt: skip
        numbers = np.random.default_rng(0)
        target = numbers.integers(0, parts.spec.vocab, count).tolist()
        for case, got in measure(parts, threads, target):
            done += 1
            if base is None:
                base = got
            unlike = (got.view(np.uint32) != base.view(np.uint32)).any(axis=1)
            if unlike.any():
                row = int(unlike.argmax())
                different = Difference(case, row, float(np.abs(got[row] - base[row]).max()), int(unlike.sum()))
                break
        del parts
        if different:
            break
    report |= {
        "logits_hash": hashlib.sha256(b"" if base is None else base.tobytes()).hexdigest()[:16],
        "cases": done, "equal": different is None, "difference": asdict(different) if different else None,
        "price": f"none: one kernel table ({report['isa']}) computes every case, nothing faster was given up",
    }  # fmt: skip
    print(json.dumps(report, indent=1) if as_json else _say(report))
    if different:
        raise typer.Exit(1)


@command.command()
def tables(
    model: Annotated[str | None, typer.Argument(help="as for run; none: the embedded one")] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=2, help="length of the sequence")] = 80,
    as_json: Json = False,
) -> None:
    """Logits and greedy tokens of one sequence under every kernel table this CPU can run (EDGEWISE_ISA)."""
    rows: list[dict[str, Any]] = []
    first: tuple[Floats, list[int]] | None = None
    name, count = "", tokens
    for isa in reversed(cpu.tables()):
        parts = assemble(embedded_model() if model is None else model, device=f"cpu:isa={isa}", max_num_seqs=1)
        name, count = parts.header.name, min(tokens, parts.context // 2)
        target = np.random.default_rng(0).integers(0, parts.spec.vocab, count).tolist()
        case = Case(parts.device.info.threads, PAGES[0], 0, 1, 0)
        got = compute(parts.runner, parts.kv, target, case, parts.spec.vocab)
        parts.kv.close(SeqId(0))
        said = _greedy(parts, target[: count // 2], count // 2)
        first = first or (got, said)
        rows.append({
            "isa": isa, "logits_hash": hashlib.sha256(got.tobytes()).hexdigest()[:16],
            "largest_difference": float(np.abs(got - first[0]).max()), "greedy_tokens_equal": said == first[1],
            "equal": np.array_equal(got.view(np.uint32), first[0].view(np.uint32)) and said == first[1],
        })  # fmt: skip
        del parts
    if as_json:
        print(json.dumps({"model": name, "tokens": count, "tables": rows}, indent=1))
    else:
        head = ["table", "logits", "largest difference", "greedy tokens", "all bits"]
        words = ("differ", "equal")
        body = [
            [
                r["isa"], r["logits_hash"], f"{r['largest_difference']:.3g}", words[r["greedy_tokens_equal"]],
                words[r["equal"]],
            ]
            for r in rows
        ]
        print(f"{name}: {count} rows of logits, {count // 2} greedy tokens")
        print(table([head, *body]))
    if not all(row["equal"] for row in rows):
        raise typer.Exit(1)


def _greedy(parts: Assembly, prompt: Sequence[int], count: int) -> list[int]:
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    request = parts.engine.add(Request(tuple(prompt), params))
    said: list[int] = []
    while len(said) < count:
        said += [token for event in parts.engine.step() if event.request_id == request for token in event.tokens]
    return said


def measure(parts: Assembly, threads: int, target: Sequence[int]) -> Iterator[tuple[Case, Floats]]:
    """The target's logits (tokens, vocab) in every case of one thread count."""
    spec = parts.spec
    grid = [(PAGES[0], chunk, batch) for chunk in reversed(CHUNKS) for batch in BATCHES]
    grid += list(itertools.product(PAGES[1:], (1, 0), (1, 7)))
    grid += [(PAGES[0], 16, 7)] * 2  # the same again, among other neighbours
    for number, (page_tokens, chunk, batch) in enumerate(grid):
        pages = batch * -(-len(target) // page_tokens)
        cache: KVCache = CACHES.build(
            "paged", device=parts.device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim,
            pages=pages, page_tokens=page_tokens, dtype=parts.kv_dtype,
        )  # fmt: skip
        runner: Runner = RUNNERS.build("text", model=parts.model, kv=cache, device=parts.device)
        case = Case(threads, page_tokens, chunk, batch, 1000 * threads + number)
        yield case, compute(runner, cache, target, case, spec.vocab)


def compute(runner: Runner, kv: KVCache, target: Sequence[int], case: Case, vocab: int) -> Floats:
    """Feeds `chunk` tokens of every sequence a step; the target comes in a random place among them."""
    numbers = np.random.default_rng(case.seed)
    place = int(numbers.integers(case.batch))
    feeds = [
        list(target) if at == place else numbers.integers(0, vocab, int(numbers.integers(1, len(target) + 1))).tolist()
        for at in range(case.batch)
    ]
    chunk = case.chunk or len(target)
    for at in range(case.batch):
        kv.open(SeqId(at), ())
    rows = []
    for past in range(0, len(target), chunk):
        work = []
        for at, tokens in enumerate(feeds):
            part = tokens[past : past + chunk]
            if part:
                kv.reserve(SeqId(at), past + len(part))
                work.append(Work(SeqId(at), part, past, len(part) if at == place else 1))
        before = sum(1 for piece in work if piece.seq < place)
        logits = runner.step(work)
        rows.append(logits[before : before + len(feeds[place][past : past + chunk])].copy())
    return np.concatenate(rows)


def _say(report: dict[str, Any]) -> str:
    lines = [
        f"model    {report['model']}",
        f"device   {report['device']}, kernel table {report['isa']}, KV {report['kv']}",
        f"cases    {report['cases']}: batch {_join(report['batches'])} x chunk {_join(report['chunks'])} x pages of "
        f"{_join(report['page_tokens'])} x threads {_join(report['threads'])}, random neighbours in every batch",
    ]
    if report["equal"]:
        lines.append(f"equal    {report['tokens']} rows of logits, every bit (sha256 {report['logits_hash']})")
    else:
        found = report["difference"]
        case = ", ".join(f"{name} {value}" for name, value in found["case"].items())
        lines.append(f"DIFFERS  first at {case}: row {found['row']}, by up to {found['largest']:.3g}")
        lines.append(f"         {found['rows']} of {report['tokens']} rows differ from the first case")
    return "\n".join([*lines, f"price    {report['price']}"])


def _join(values: Sequence[Any]) -> str:
    return "/".join(map(str, values))
