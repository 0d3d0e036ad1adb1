"""Decode at few bits through the commands a user types, beside llama.cpp's own few bits, on one shape.

    python bench/low_bits.py SOURCE.gguf --folder WORK [-q FORMATS] [--llama DIR] [-t 2] [-n 32] [--rounds 5]

Makes what WORK lacks: `edgewise convert SOURCE -q ... --pure` (every matrix, embedding and head too) and, where DIR has
llama.cpp's `llama-quantize` and `llama-bench`, `llama-quantize --pure` to TQ2_0, Q2_K and Q4_0. Then rounds: `edgewise
bench speed` and `llama-bench` on each of them in turn, the order rotating; rounds are added to those that
WORK/rounds.json keeps, so that a few can be measured at a time.

Prints medians, and medians of the ratios within a round, to the first format and
to edgewise's Q4_0.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

THEIRS = ("TQ2_0", "Q2_K", "Q4_0")


def make(options: argparse.Namespace) -> dict[str, Path]:
    """Name → model; those that do not exist are written."""
    models = {}
    for quant in options.quants.split(","):
        own = quant.partition(":")[0] in ("int1", "ternary", "int2", "int3", "int4", "int8")
        path = options.folder / (quant.replace(":", "-").replace("=", "-") + ("" if own else ".gguf"))
        if not path.exists():
            pure = [] if own else ["--pure"]
            run(edgewise("convert", options.source, "-o", path, "-q", quant, *pure))
        models[quant] = path
    if options.llama is not None:
        for quant in THEIRS:
            path = options.folder / f"llama.cpp-{quant}.gguf"
            if not path.exists():
                run([options.llama / "llama-quantize", "--pure", options.source, path, quant, options.threads])
            models[f"llama.cpp {quant}"] = path
    return models


def speed(name: str, path: Path, options: argparse.Namespace) -> float:
    """Decoded tokens a second."""
    common = ["-p", 0, "-n", options.decode, "-t", options.threads, "-r", options.repetitions]
    if name.startswith("llama.cpp"):
        rows = json.loads(run([options.llama / "llama-bench", "-m", path, *common, "-o", "json"]))
        return float(statistics.median(rows[0]["samples_ts"]))
    return float(json.loads(run(edgewise("bench", "speed", path, *common, "--json")))[0]["tok_s"])


def edgewise(*words: Any) -> list[Any]:
    return [sys.executable, "-m", "edgewise.serve.cli", *words]


def run(words: list[Any]) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} {words[1]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def nbytes(path: Path) -> int:
    files = path.glob("*.safetensors") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a GGUF file in floats")
    parser.add_argument("--folder", type=Path, required=True, help="for what is made and measured")
    parser.add_argument("-q", "--quants", default="int2:group=64,q4_0", help="edgewise's formats")
    parser.add_argument("--llama", type=Path, help="the folder with llama-quantize and llama-bench")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-n", "--decode", type=int, default=32)
    parser.add_argument("-r", "--repetitions", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    models = make(options)
    kept = options.folder / "rounds.json"
    rounds: list[dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else []
    for _ in range(options.rounds):
        names = list(models)
        turn = len(rounds) % len(names)
        rounds.append({name: speed(name, models[name], options) for name in names[turn:] + names[:turn]})
        kept.write_text(json.dumps(rounds, indent=1))
    print(describe(models, [r for r in rounds if r.keys() >= models.keys()]))


def describe(models: dict[str, Path], rounds: list[dict[str, float]]) -> str:
    first = next(iter(models))
    plain = "q4_0" if "q4_0" in models else first
    head = f"{'format':<18}{'MB':>8}{'tok/s':>9}{f'{first} over it':>24}{f'it over {plain}':>16}"
    lines = [f"{len(rounds)} rounds", head]
    for name, path in models.items():
        rate = statistics.median(r[name] for r in rounds)
        ahead = statistics.median(r[first] / r[name] for r in rounds)
        over = statistics.median(r[name] / r[plain] for r in rounds)
        lines.append(f"{name:<18}{nbytes(path) / 1e6:>8.0f}{rate:>9.1f}{ahead:>24.2f}{over:>16.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
