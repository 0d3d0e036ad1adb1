"""`edgewise bench mixes`: does `auto` keep up with the better of drafting always and never, whatever is asked?

Paper:  Liu et al., Optimizing Speculative Decoding for Serving LLMs Using Goodput, 2024, arXiv:2406.14066
Exact.  Every side's tokens must equal the plain ones, or the command fails.
Needs:  a model with a tokenizer; --draft for a draft model
Cost:   (rounds + 1) x tokens x batch x sides for each of 6 workloads and each batch; --seconds cuts it into bursts
Status: kept
"""

import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput, EdgewiseError, Request
from edgewise.decode.api import Draft
from edgewise.serve.options import Json, Threads, split_members, table
from edgewise.serve.watching import NOISE, Noise, interval, targeted
from edgewise.serve.workloads import WORKLOADS, workload

OFF, AUTO = "none", "auto"
UNDER = {NOISE: "code"}  # text beside which drafts are made up at random
FLOORS = {NOISE: 0.95}  # of auto beside the better side; else:
FLOOR = 0.97
PAGE = 16


def measure_mixes(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, user/repo; none: embedded")] = None,
    draft: Annotated[str | None, typer.Option(help="a draft model: one more side, and a member of auto")] = None,
    on: Annotated[str, typer.Option(help="speculators that draft always, commas between them")] = "suffix",
    auto: Annotated[str, typer.Option(help="the one that chooses, with settings")] = AUTO,
    workloads: Annotated[str, typer.Option(help=f"of {', '.join(WORKLOADS)}; {NOISE}: random drafts under auto")] = (
        ",".join((*WORKLOADS, NOISE))
    ),
    batch: Annotated[str, typer.Option(help="sequences at once, numbers with commas")] = "1,4,16",
    tokens: Annotated[int, typer.Option("-n", min=8, help="decoded of each sequence")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="races of all sides")] = 7,
    seconds: Annotated[float, typer.Option(min=0, help="begin no more races after so long; 0: go on")] = 0,
    state: Annotated[Path | None, typer.Option(help="folder: goes on with what earlier calls measured")] = None,
    threads: Threads = None,
    svg: Annotated[Path | None, typer.Option(help="draw auto beside the better side")] = None,
    as_json: Json = False,
) -> None:
    """Sides: nobody drafts, each of --on drafts always, auto. Each has an engine of its own on one copy of the weights.

    All sides write the same texts at the same time: the next step is always that of the side which has written least,
    so that whatever else the machine does hits all alike. auto/best: the median over rounds of auto's speed by that of
    the side with the best median, in the same round, with its 95 % interval.
    """
    from edgewise.serve import hub
    from edgewise.serve.drawing import lines
    from edgewise.serve.llm import LLM

    begin, names = time.monotonic(), split_members(on)
    if draft is not None:
        path = hub.locate(draft)
        names.append(f"draft:model={path}")
        auto += f"{',' if ':' in auto else ':'}model={path}"
    kinds, sizes = _known(workloads), _sizes(batch)
    file, found = _state(state, [model, names, auto, tokens, threads])
    with LLM(None if model is None else hub.locate(model), threads=threads, max_num_seqs=1, ctx_size=None) as llm:
        for kind, size in [(kind, size) for kind in kinds for size in sizes]:
            cell = found.setdefault(f"{kind} {size}", {"seconds": {}, "tokens_step": {}})
            missing = rounds - len(cell["seconds"].get(OFF, ()))
            if missing < 1 or (seconds and time.monotonic() - begin > seconds):
                continue
            asked = [workload(llm, UNDER.get(kind, kind), tokens, at) for at in range(size)]
            sides = [Side(llm, name, size) for name in ([OFF, NOISE] if kind == NOISE else [OFF, *names, auto])]
            for took in races(sides, asked, kind, missing):
                for side in sides:
                    label = AUTO if side is sides[-1] else _label(side.name)
                    cell["seconds"].setdefault(label, []).append(took[side.name])
                    cell["tokens_step"][label] = side.tokens / side.steps / size
                if file is not None:
                    file.write_text(json.dumps(found), encoding="utf-8")
                if seconds and time.monotonic() - begin > seconds:
                    break
    rows = [
        summary(kind, size, cell)
        for kind in kinds for size in sizes for cell in [found[f"{kind} {size}"]] if cell["seconds"]
    ]  # fmt: skip
    if svg is not None:
        drawn = {kind: [(r["batch"], r["ratio"]) for r in rows if r["workload"] == kind] for kind in kinds}
        lines(svg, drawn, "auto beside the better of on and off", "sequences at once", "times as fast", FLOOR)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    head = ["workload", "batch", "off tok/s", "on, best", "auto", "auto/best", "95 %", "best", "tokens/step", "rounds"]
    body = [
        [
            r["workload"], str(r["batch"]), f"{r['off_tok_s']:.1f}", f"{r['on']:.3f}x" if r["on"] else "-",
            f"{r['auto']:.3f}x", f"{r['ratio']:.3f}", f"{r['low']:.3f}-{r['high']:.3f}", r["best"],
            f"{r['tokens_step']:.2f}", str(r["rounds"]),
        ]
        for r in rows
    ]  # fmt: skip
    print(f"{tokens} tokens of each sequence; all texts are the plain ones, bit for bit")
    print(table([head, *body], {1, 2, 3, 4, 5, 6, 8, 9}))
    good = [r for r in rows if r["ratio"] >= r["floor"]]
    print(f"{len(good)} of {len(rows)} at or above {FLOOR} ({NOISE}: {FLOORS[NOISE]}) of the better side")


class Side:
    """A speculator with an engine and a KV cache of its own. steps: of the last race. made: tokens, those before it
    included."""

    def __init__(self, llm: Any, name: str, batch: int) -> None:
        from edgewise.decode.speculators import SPECULATORS
        from edgewise.decode.verifiers import build_verifier
        from edgewise.engine.loop import Engine
        from edgewise.engine.policies import POLICIES
        from edgewise.engine.runners import RUNNERS
        from edgewise.kv import CACHES

        parts = llm.parts
        self.name, self.batch, self.steps, self.made = name, batch, 0, 0
        member = SPECULATORS.build(AUTO if name == NOISE else name)
        if name == NOISE:
            member.members, member.slow = [Noise(parts.spec.vocab) for _ in member.members], -1
        for one in (member, *getattr(member, "members", ())):
            if hasattr(one, "past"):
                one.past = False  # the rounds decode the same texts: nobody may remember them
        member.prepare(targeted(llm, batch))
        self.member: Any = member
        pages = (batch + 4) * (-(-parts.context // PAGE) + 2)
        spec = parts.spec
        cache = CACHES.build(
            "paged", device=parts.device, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim,
            pages=pages, page_tokens=PAGE, dtype=parts.kv_dtype,
        )  # fmt: skip
        self.engine = Engine(
            RUNNERS.build("text", model=parts.model, kv=cache, device=parts.device), cache, POLICIES.build("fcfs"),
            member, build_verifier("auto", name, parts.engine.verifier.sampler), vocab=spec.vocab,
            context=parts.context, ends=parts.engine.ends, sequences=batch,
        )  # fmt: skip

    def start(self, asked: Sequence[Request]) -> None:
        """Until every sequence has its first token; nobody drafts before, so that all sides begin with the same."""
        self.order = [self.engine.add(request) for request in asked]
        self.got: dict[str, list[int]] = {name: [] for name in self.order}
        self.seconds, self.steps = 0.0, 0
        propose, member = self.member.propose, self.member
        member.propose = lambda seqs, budget: [Draft()] * len(seqs)
        try:
            while not all(self.got.values()):
                self.step()
        finally:
            member.propose = propose
        self.seconds, self.steps, self._before = 0.0, 0, sum(map(len, self.got.values()))

    def step(self) -> None:
        begin = time.perf_counter()
        events = self.engine.step()
        self.seconds += time.perf_counter() - begin
        self.steps += 1
        for event in events:
            if event.error:
                raise BadInput(event.error)
            self.got[event.request_id] += event.tokens
        self.made = sum(map(len, self.got.values()))

    @property
    def tokens(self) -> int:
        """Of the last race."""
        return self.made - self._before


def races(sides: Sequence[Side], asked: Sequence[Request], kind: str, rounds: int) -> Iterator[dict[str, float]]:
    """Seconds a token of each side, one answer a round; a round before them is not counted: prompts are cached by it,
    costs are learnt. Raises EdgewiseError when a text is not the plain one."""
    for at in range(rounds + 1):
        for side in sides:
            side.start(asked)
        running = list(sides)
        while running:
            side = min(running, key=lambda side: side.made)
            side.step()
            if not side.engine.has_work():
                running.remove(side)
        want = [sides[0].got[name] for name in sides[0].order]
        for side in sides[1:]:
            if [side.got[name] for name in side.order] != want:
                raise EdgewiseError(f"'{side.name}' changed the text of {kind}. This is a bug: please report it.")
        if at:
            yield {side.name: side.seconds / side.tokens for side in sides}


def summary(kind: str, batch: int, cell: dict[str, Any]) -> dict[str, Any]:
    """One row: the sides beside `off`, and auto beside the best of the others, round by round."""
    sides: dict[str, list[float]] = cell["seconds"]
    auto, off = sides[AUTO], sides[OFF]
    speeds = {name: statistics.median(own) for name, own in sides.items() if name != AUTO}
    best = min(speeds, key=speeds.__getitem__)
    ratios = [other / mine for other, mine in zip(sides[best], auto, strict=True)]
    low, high = interval(ratios)

    def beside_off(name: str) -> float:
        return statistics.median(slow / fast for slow, fast in zip(off, sides[name], strict=True))

    drafting = [beside_off(name) for name in speeds if name != OFF]
    return {
        "workload": kind, "batch": batch, "rounds": len(auto), "off_tok_s": 1 / speeds[OFF],
        "on": max(drafting, default=0.0), "auto": beside_off(AUTO), "best": best, "ratio": statistics.median(ratios),
        "low": low, "high": high, "floor": FLOORS.get(kind, FLOOR),
        "sides": {name: beside_off(name) for name in sides},
        "tokens_step": cell["tokens_step"][AUTO], "seconds_token": sides,
    }  # fmt: skip


def _known(names: str) -> list[str]:
    kinds = [name for name in names.split(",") if name]
    for name in kinds:
        if name not in (*WORKLOADS, NOISE):
            raise BadInput(f"There is no workload '{name}'. Known: {', '.join((*WORKLOADS, NOISE))}.")
    return kinds


def _sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if not sizes or min(sizes) < 1 or len(sizes) != text.count(",") + 1:
        raise BadInput(f"--batch is '{text}' but must be numbers of at least 1, with commas between them.")
    return sizes


def _label(name: str) -> str:
    """A member's name without the path of its model."""
    return ",".join(part.rpartition("/")[2] if "/" in part else part for part in name.split(","))


def _state(folder: Path | None, settings: list[Any]) -> tuple[Path | None, dict[str, Any]]:
    """Where results are kept, one file for each combination of settings, and what is there."""
    if folder is None:
        return None, {}
    folder.mkdir(parents=True, exist_ok=True)
    stamps = [Path(part).stat().st_mtime for part in settings if isinstance(part, str) and Path(part).is_file()]
    key = hashlib.sha256(json.dumps([settings, stamps]).encode()).hexdigest()[:12]
    file = folder / f"mixes-{key}.json"
    return file, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
