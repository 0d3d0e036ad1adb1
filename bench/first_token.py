"""Time from process start to the first token, and peak memory, beside llama.cpp: same GGUF, same threads, interleaved.

    python bench/first_token.py MODEL.gguf [-t 2] [--tokens 16] [--pairs 7] [--llamacpp FOLDER] [--phases] [--json]

Each engine is started as a user starts it, once for every pair, A B, B A, ...: `edgewise run` and llama.cpp's
`llama-completion` with its defaults (warm-up and repacking on). Time runs from before the process is made to the first
byte of the answer on its standard output (of neither engine is the prompt printed); where an engine flushes nothing
before it ends, to its end. Peak memory is the kernel's ru_maxrss (VmHWM). The file is read once before, so that the
page cache is warm. The prompt is cut so that the model's own tokenizer gives exactly `--tokens` tokens.
Many virtual machines give free memory back to their host, and then its first touch costs a second for each GB: luck
decides who gets such pages. It shows as time in the kernel, so that is printed, and the best start of each beside the
median. One start of each is not counted: Python compiles our modules then, as pip does when it installs the package
(PYTHONDONTWRITEBYTECODE is taken away from the processes: a compiler's time is no part of a start). --phases: where our
time goes, from EDGEWISE_TRACE_START=1, and what is imported, from `python -X importtime`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TEXT = "The quick brown fox jumps over the lazy dog and runs far away into the deep green forest of the north "
OURS, THEIRS = "edgewise", "llama.cpp"


@dataclass
class Started:
    """One process, from before it was made: seconds to its first byte and to its end; bytes at its peak."""

    first_s: float
    end_s: float
    peak_bytes: int
    kernel_s: float  # of all its threads
    said: bytes


def start(command: list[str], env: dict[str, str] | None = None) -> Started:
    with tempfile.TemporaryFile() as errors:
        before = time.perf_counter()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env, bufsize=0
        )
        assert child.stdout is not None
        said = child.stdout.read(1) or b""
        first = time.perf_counter() - before
        while more := child.stdout.read(65536):
            said += more
        _, status, usage = os.wait4(child.pid, 0)
        end = time.perf_counter() - before
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stdout.close()
        if child.returncode:
            errors.seek(0)
            why = errors.read()[-2000:].decode(errors="replace")
            raise SystemExit(f"{command[0]} ended with {child.returncode}: {why}")
    return Started(first if said else end, end, usage.ru_maxrss * 1024, usage.ru_stime, said)


def prompt_of(model: Path, tokens: int) -> str:
    """Text of exactly `tokens` tokens, BOS included where the model wants it."""
    from edgewise.text import load_tokenizer
    from edgewise.weights import open_checkpoint

    tokenizer = load_tokenizer(open_checkpoint(model, need_tensors=False).header())
    text = TEXT * (tokens // 8 + 1)
    for length in range(1, len(text)):
        if text[length - 1] != " " and len(tokenizer.encode(text[:length], add_special=True)) == tokens:
            return text[:length]
    raise SystemExit(f"No beginning of the text has exactly {tokens} tokens.")


def commands(options: argparse.Namespace, prompt: str) -> dict[str, list[str]]:
    threads = str(options.threads)
    ours = [sys.executable, "-m", "edgewise.serve.cli", "run", str(options.model), "--raw", "-p", prompt, "-n", "4"]
    theirs = [str(options.llamacpp / "llama-completion"), "-m", str(options.model), "-p", prompt, "-n", "4"]
    shared = ["--temp", "0", "-c", "512", "-t", threads]
    return {
        OURS: [*ours, *shared, "--ignore-eos"],
        THEIRS: [*theirs, *shared, "-no-cnv", "--no-display-prompt", "--ignore-eos"],
    }


def environment(**more: str) -> dict[str, str]:
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}, **more}


def measure(options: argparse.Namespace) -> dict[str, object]:
    prompt = prompt_of(options.model, options.tokens)
    made = commands(options, prompt)
    size = options.model.stat().st_size
    with options.model.open("rb") as file:
        while file.read(1 << 24):
            pass
    for command in made.values():
        start(command, environment())
    runs: dict[str, list[Started]] = {OURS: [], THEIRS: []}
    for pair in range(options.pairs):
        for name in (OURS, THEIRS) if pair % 2 == 0 else (THEIRS, OURS):
            runs[name].append(start(made[name], environment()))
    ratios = [a.first_s / b.first_s for a, b in zip(runs[OURS], runs[THEIRS], strict=True)]
    return {
        "model": options.model.name, "threads": options.threads, "prompt_tokens": options.tokens, "file_bytes": size,
        "pairs": options.pairs, "ratio_median": statistics.median(ratios), "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_of_the_best": min(run.first_s for run in runs[OURS]) / min(run.first_s for run in runs[THEIRS]),
        "engines": {
            name: {
                "first_token_s": statistics.median(run.first_s for run in made),
                "first_token_s_all": [round(run.first_s, 4) for run in made],
                "kernel_s_all": [round(run.kernel_s, 3) for run in made],
                "end_s": statistics.median(run.end_s for run in made),
                "peak_bytes": statistics.median(run.peak_bytes for run in made),
                "peak_over_file": statistics.median(run.peak_bytes for run in made) / size,
            }
            for name, made in runs.items()
        },
    }  # fmt: skip


def phases(options: argparse.Namespace) -> None:
    """Prints our own milestones (median of five runs) and the slowest imports."""
    command = commands(options, prompt_of(options.model, options.tokens))[OURS]
    seen: dict[str, list[float]] = {}
    for _ in range(5):
        before = time.time()
        done = subprocess.run(
            command, env=environment(EDGEWISE_TRACE_START="1"), capture_output=True, text=True, check=True
        )
        for line in done.stderr.splitlines():
            if line.startswith("start: "):
                _, at, what = line.split(" ", 2)
                seen.setdefault(what, []).append(float(at) - before)
    for what, times in sorted(seen.items(), key=lambda item: statistics.median(item[1])):
        print(f"{1000 * statistics.median(times):8.0f} ms  {what}")
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], env=environment(), capture_output=True, text=True, check=True
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line]
    total = sorted(((int(row[1]), row[2]) for row in rows if row[1].strip().isdigit()), reverse=True)
    print("slowest imports (cumulative, with the cost of timing them):")
    for spent, name in total[:24]:
        print(f"{spent / 1000:8.1f} ms {name.rstrip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--llamacpp", type=Path, default=Path("build/bin"), help="folder with llama-completion")
    parser.add_argument("--phases", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.phases:
        phases(options)
        return
    result = measure(options)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['model']}, {options.tokens}-token prompt, {options.threads} threads, {options.pairs} pairs")
    for name, row in result["engines"].items():  # type: ignore[attr-defined]
        print(
            f"  {name:10} first token {row['first_token_s']:.3f} s ({min(row['first_token_s_all']):.3f} to "
            f"{max(row['first_token_s_all']):.3f}), peak {row['peak_bytes'] / 2**20:.0f} MiB, "
            f"{row['peak_over_file']:.3f} of the file, in the kernel {min(row['kernel_s_all']):.2f} to "
            f"{max(row['kernel_s_all']):.2f} s"
        )
    print(
        f"  ratio {result['ratio_median']:.3f} (pairs {result['ratio_min']:.3f} to {result['ratio_max']:.3f}), "
        f"of the best starts {result['ratio_of_the_best']:.3f}"
    )


if __name__ == "__main__":
    main()
