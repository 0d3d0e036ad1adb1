"""Where a decode step's time goes: kernels, native code around them, Python around that.

    python bench/overhead.py MODEL... [-t 2] [-n 128] [-b 1 8] [-r 5] [--parts]

A step is Engine.step with greedy requests: policy, cache, model, sampling, events. It is timed twice, interleaved: verb
by verb as a model file is written, and replayed from its recording. "kernels" is the time inside the device's verbs
(threads' handing over included), "native" what a replayed step spends between them, "Python" all the rest. --parts
says which calls of the engine's members Python's part is made of; timing them costs some time itself.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from edgewise.base import Request, SamplingParams
from edgewise.serve.llm import LLM

MEMBERS = {
    "policy": ("policy", ("pick",)),
    "room": ("kv", ("free_tokens", "reserve")),
    "plan": ("kv", ("begin", "commit")),  # called by the runner
    "runner": ("runner", ("step", "peaks")),
    "verifier": ("verifier", ("accept",)),
    "speculator": ("speculator", ("propose", "accepted")),
}


def timed(call: Callable[..., Any], total: dict[str, float], name: str) -> Callable[..., Any]:
    def wrapper(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        total[name] += time.perf_counter() - start
        return result

    return wrapper


def run(llm: LLM, batch: int, steps: int, metered: bool = True) -> tuple[float, float, float]:
    """Microseconds a step: in all, inside verbs, inside programs."""
    engine, device = llm.parts.engine, llm.parts.device
    params = SamplingParams(temperature=0, max_tokens=steps + 8, ignore_eos=True)
    names = [engine.add(Request(tokens=(1, 2 + i), params=params)) for i in range(batch)]
    for _ in range(4):  # the prompts, and a few to warm up
        engine.step()
    device.meter(metered)
    start = time.perf_counter()
    for _ in range(steps):
        engine.step()
    seconds = time.perf_counter() - start
    verbs, programs = device.meter(False)
    for name in names:
        engine.cancel(name)
    engine.step()
    return seconds / steps * 1e6, verbs / steps / 1e3, programs / steps / 1e3


def verb_by_verb(llm: LLM, batch: int, steps: int) -> tuple[float, float, float]:
    forward = llm.parts.runner.forward
    forward.replays = False
    try:
        return run(llm, batch, steps)
    finally:
        forward.replays = True


def parts(llm: LLM, batch: int, steps: int) -> dict[str, float]:
    """Microseconds a step inside each member's calls."""
    engine, total = llm.parts.engine, dict.fromkeys(MEMBERS, 0.0)
    wrapped = [(getattr(engine, slot), verb, name) for name, (slot, verbs) in MEMBERS.items() for verb in verbs]
    for member, verb, name in wrapped:
        setattr(member, verb, timed(getattr(member, verb), total, name))
    try:
        step, _, programs = run(llm, batch, steps)
    finally:
        for member, verb, _ in wrapped:
            delattr(member, verb)
    out = {name: seconds / (steps + 4) * 1e6 for name, seconds in total.items()}
    out["runner"] = max(0.0, out["runner"] - programs - out["plan"])
    out["loop"] = step - programs - sum(out.values())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-n", "--steps", type=int, default=128)
    parser.add_argument("-b", "--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    print(
        f"{'model':24} {'batch':>5} {'step':>16} {'us':>8} {'kernels':>8} {'native':>7} {'Python':>7} "
        f"{'outside':>8} {'Python':>7}"
    )
    for model in options.models:
        with LLM(model, threads=options.threads, max_num_seqs=max(options.batch)) as llm:
            for batch in options.batch:
                kinds: dict[str, list[tuple[float, float, float]]] = {"verb by verb": [], "replayed": []}
                for _ in range(options.rounds):
                    kinds["verb by verb"].append(verb_by_verb(llm, batch, options.steps))
                    kinds["replayed"].append(run(llm, batch, options.steps))
                for kind, rows in kinds.items():
                    # the step with the median time: its parts belong together
                    step, verbs, programs = sorted(rows)[len(rows) // 2]
                    native = max(0.0, programs - verbs)
                    python = step - max(programs, verbs)
                    print(
                        f"{llm.name[:24]:24} {batch:5} {kind:>16} {step:8.1f} {verbs:8.1f} {native:7.1f} {python:7.1f} "
                        f"{1 - verbs / step:8.1%} {python / step:7.1%}"
                    )
                if options.parts:
                    found = [parts(llm, batch, options.steps) for _ in range(3)]
                    text = ", ".join(f"{name} {statistics.median(f[name] for f in found):.1f}" for name in found[0])
                    print(f"{'':30} Python's us: {text}")


if __name__ == "__main__":
    main()
