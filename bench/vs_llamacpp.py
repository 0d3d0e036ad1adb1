"""edgewise beside llama.cpp: same GGUF, same threads, interleaved in one run.

    python bench/vs_llamacpp.py MODEL.gguf [-t 2] [-p 512] [-n 128] [-b 8] [--pairs 7] [--json]

Builds llama.cpp natively (the sources in llama-cpp-python's sdist, -DGGML_NATIVE=ON) into an environment of its own,
once. Each engine lives in its own long-running process, so that loading is not timed; runs alternate A B, B A, A B, ...
so that drift hits both, and the one that waits is stopped. The read bandwidth is probed before and after each pair,
because on shared machines it changes by itself. Prints medians, the median of the pairwise ratios, bandwidth and
versions. bench/vs_peers.py does the same against more engines, and more tests.
"""

import argparse
import json
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgewise.serve.machine import cpu_model
from race.children import Child, Failed
from race.peers import BUILD, Model, llamacpp, own
from race.roofs import Prober
from race.rounds import speeds
from race.subjects import Subject, Trial


def compare(ours: Child, theirs: Child, test: Trial, pairs: int, probe: Prober) -> dict[str, Any]:
    rows = speeds(ours, theirs, test, pairs, probe)
    ratios = [row["ratio"] for row in rows]
    read = [row[end]["gb_s"] for row in rows for end in ("before", "after")]
    return {
        "test": test.name,
        "threads": probe.threads,
        "batch": test.batch,
        "pairs": [
            {
                ours.name: row["ours"]["tok_s"],
                theirs.name: row["theirs"]["tok_s"],
                "ratio": row["ratio"],
                "gb_s_before": row["before"]["gb_s"],
                "gb_s_after": row["after"]["gb_s"],
            }
            for row in rows
        ],
        ours.name: statistics.median(row["ours"]["tok_s"] for row in rows),
        theirs.name: statistics.median(row["theirs"]["tok_s"] for row in rows),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "gb_s_min": min(read),
        "gb_s_max": max(read),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Raises Failed when either engine cannot be made, started or measured."""
    subject = Subject(options.model.name, options.model, None)
    batch = max(1, options.batch)
    plan = [Trial("decode", options.decode), Trial("prefill", options.prompt)]
    if batch > 1:
        plan.append(Trial("decode", options.decode, batch))
    numbers = {
        "threads": options.threads, "context": max(options.prompt, options.decode), "batch": batch,
        "vocab": subject.vocab,
    }  # fmt: skip
    arguments = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    peer = llamacpp(options.llamacpp_version, options.venv)
    python = peer.install()
    model = Model(options.model, subject.format, subject.step_bytes)
    with own(subject, arguments, 600) as ours, peer.start(python, model, arguments, 600) as theirs:
        probe = Prober(options.threads, BUILD / "bench-probe")
        results = [compare(ours, theirs, test, options.pairs, probe) for test in plan if test.tokens > 0]
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} CPUs, {platform.system()} {platform.release()}",
            "model": options.model.name,
            "model_bytes": subject.file_bytes,
            "versions": {child.name: child.about for child in (ours, theirs)},
            "peak_rss_bytes": {child.name: child.peak_rss_bytes for child in (ours, theirs)},
            "results": results,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-p", "--prompt", type=int, default=512, help="prefill tokens; 0 skips")
    parser.add_argument("-n", "--decode", type=int, default=128, help="decode tokens; 0 skips")
    parser.add_argument("-b", "--batch", type=int, default=8, help="sequences of the batched decode; 0 or 1 skips")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--venv", type=Path, default=BUILD / "bench-llamacpp")
    parser.add_argument("--llamacpp-version", help="of llama-cpp-python; default: what is there, or the newest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        report = measure(options)
    except Failed as error:
        raise SystemExit(f"vs_llamacpp: {error}") from None
    print(json.dumps(report, indent=1) if options.json else describe(report))


def describe(report: dict[str, Any]) -> str:
    abouts = [about["versions"] for about in report["versions"].values()]
    versions = ", ".join(f"{name} {number}" for each in abouts for name, number in each.items())
    lines = [
        f"{report['date']}  {report['machine']}",
        f"{report['model']} ({report['model_bytes'] / 1e6:.0f} MB), {versions}",
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
