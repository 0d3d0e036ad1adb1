"""edgewise beside llama.cpp: same GGUF, same threads, interleaved in one run.

    python bench/vs_llamacpp.py MODEL.gguf [-t 2] [-p 512] [-n 128] [-b 8] [--pairs 7] [--json]

Builds llama.cpp natively (the sources in llama-cpp-python's sdist, -DGGML_NATIVE=ON) into an environment of its own,
once. Each engine lives in its own long-running process, so that loading is not timed; runs alternate A B, B A, A B, ...
so that drift hits both. The read bandwidth of as many threads is probed before and after each pair, because on shared
machines it changes by itself. Prints medians, the median of the pairwise ratios, bandwidth and versions.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgewise.serve.machine import cpu_model
from edgewise.serve.probe import read_bandwidth

HERE = Path(__file__).resolve().parent


class Child:
    """One engine in its own process, driven a line at a time."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()
        self.peak_rss_bytes = 0

    def run(self, op: str, tokens: int, batch: int) -> float:
        """Tokens per second, all sequences together."""
        assert self.process.stdin is not None
        time.sleep(0.2)  # the other engine's threads may still spin after its turn
        print(json.dumps({"op": op, "tokens": tokens, "batch": batch}), file=self.process.stdin, flush=True)
        answer = self._answer()
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return float(tokens * batch / answer["seconds"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}; its message is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def llamacpp_python(folder: Path, version: str | None) -> str:
    """The interpreter of an environment with llama-cpp-python, built here from its sdist when it is not there yet."""
    python = folder / "bin" / "python"
    asked = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    trial = [python, "-c", "import llama_cpp"]
    if python.exists() and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return str(python)
    print(f"building {asked} in {folder} (minutes, once)", file=sys.stderr)
    venv.create(folder, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-binary", "llama-cpp-python", asked],
        env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}, stdout=sys.stderr, check=True,
    )  # fmt: skip
    return str(python)


def compare(ours: Child, theirs: Child, op: str, tokens: int, batch: int, pairs: int, threads: int) -> dict[str, Any]:
    """One test: a warm-up each, then interleaved pairs."""
    for child in (ours, theirs):
        child.run(op, min(tokens, 32), batch)
    rows = []
    before = read_bandwidth(threads, passes=3)
    for i in range(pairs):
        order = (ours, theirs) if i % 2 == 0 else (theirs, ours)
        rates = {child.name: child.run(op, tokens, batch) for child in order}
        after = read_bandwidth(threads, passes=3)
        ratio = rates[ours.name] / rates[theirs.name]
        rows.append({**rates, "ratio": ratio, "gb_s_before": before, "gb_s_after": after})
        before = after
    name = f"{'pp' if op == 'prefill' else 'tg'}{tokens}" + (f"x{batch}" if batch > 1 else "")
    return {
        "test": name,
        "threads": threads,
        "batch": batch,
        "pairs": rows,
        ours.name: statistics.median(row[ours.name] for row in rows),
        theirs.name: statistics.median(row[theirs.name] for row in rows),
        "ratio_median": statistics.median(row["ratio"] for row in rows),
        "ratio_min": min(row["ratio"] for row in rows),
        "ratio_max": max(row["ratio"] for row in rows),
        "gb_s_min": min(min(row["gb_s_before"], row["gb_s_after"]) for row in rows),
        "gb_s_max": max(max(row["gb_s_before"], row["gb_s_after"]) for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-p", "--prompt", type=int, default=512, help="prefill tokens; 0 skips")
    parser.add_argument("-n", "--decode", type=int, default=128, help="decode tokens; 0 skips")
    parser.add_argument("-b", "--batch", type=int, default=8, help="sequences of the batched decode; 0 or 1 skips")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--venv", type=Path, default=HERE.parent / "build" / "bench-llamacpp")
    parser.add_argument("--llamacpp-version", help="of llama-cpp-python; default: the newest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    batch = max(1, options.batch)
    shared = [str(options.model), "--threads", str(options.threads), "--batch", str(batch)]
    longest = max(options.prompt, options.decode)
    cells = max(longest, options.decode * batch)  # llama.cpp shares one pool of cells among its sequences
    python = llamacpp_python(options.venv, options.llamacpp_version)
    ours = Child("edgewise", [sys.executable, str(HERE / "engines" / "own.py"), *shared, "--context", str(longest)])
    program = [python, str(HERE / "engines" / "llamacpp.py"), *shared, "--context", str(-(-cells // 256) * 256)]
    theirs = Child("llama.cpp", program)
    plan = [("decode", options.decode, 1), ("prefill", options.prompt, 1), ("decode", options.decode, options.batch)]
    results = [
        compare(ours, theirs, op, tokens, size, options.pairs, options.threads)
        for i, (op, tokens, size) in enumerate(plan)
        if tokens > 0 and (i < 2 or size > 1)
    ]
    for child in (ours, theirs):
        child.close()
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} CPUs, {platform.system()} {platform.release()}",
        "model": options.model.name,
        "model_bytes": options.model.stat().st_size,
        "versions": {child.name: child.about for child in (ours, theirs)},
        "peak_rss_bytes": {child.name: child.peak_rss_bytes for child in (ours, theirs)},
        "results": results,
    }
    print(json.dumps(report, indent=1) if options.json else describe(report))


def describe(report: dict[str, Any]) -> str:
    lines = [
        f"{report['date']}  {report['machine']}",
        f"{report['model']} ({report['model_bytes'] / 1e6:.0f} MB)",
        f"edgewise {report['versions']['edgewise']['version']} against "
        f"llama-cpp-python {report['versions']['llama.cpp']['version']}",
        "",
        "| test | threads | edgewise tok/s | llama.cpp tok/s | ratio (min-max of pairs) | read GB/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["results"]:
        lines.append(
            f"| {row['test']} | {row['threads']} | {row['edgewise']:.2f} | {row['llama.cpp']:.2f} "
            f"| {row['ratio_median']:.3f} ({row['ratio_min']:.3f}-{row['ratio_max']:.3f}) "
            f"| {row['gb_s_min']:.0f}-{row['gb_s_max']:.0f} |"
        )
    for name, peak in report["peak_rss_bytes"].items():
        lines.append(f"\npeak memory of {name}: {peak / 2**20:.0f} MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
