"""`python -m edgewise.testing.mutate gguf|st|config|tokenizer|truncate --n 20000 --seed 1` → one JSON line.

A failure is a signal, an exception that is none of the house's, more than 5 s, or more memory than the files + 64 MB.
bound95: with 95 % confidence the true rate is below it (3 / n when nothing failed).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would not survive the forks

from edgewise.testing.mutate.cases import KINDS, Cases, corpus
from edgewise.testing.mutate.forks import begin, bound95, run_cases
from edgewise.testing.mutate.loading import stages, use
from edgewise.testing.mutate.truncate import truncations


def mutate(
    kind: str, n: int, seed: int, wanted: str = "all", *, rss: bool = True, only: int | None = None
) -> dict[str, object]:
    """Runs n mutants of one kind and gives the line to print."""
    names = stages(wanted)
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(kind, seed, Path(folder))

        def run(number: int) -> tuple[int, str]:
            path, target, nbytes = cases.write(number)
            begin()
            try:
                return nbytes, use(path, names)
            finally:
                cases.restore(target)

        numbers = range(n) if only is None else [only]
        failures, outcomes = run_cases(numbers, run, control=-1, rss=rss)
    return {
        "row": KINDS[kind], "kind": kind, "n": len(numbers), "fail": len(failures),
        "bound95": bound95(len(failures), len(numbers)), "seed": seed, "stages": names,
        "outcomes": dict(outcomes.most_common()), "failures": [[f.case, f.what] for f in failures[:5]],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgewise.testing.mutate", description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "truncate", "corpus"])
    parser.add_argument("--n", type=int, default=1000, help="how many files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", default="all", help="all, or some of open,read,text,template,model")
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--keep", type=Path, help="with --only or corpus: put the files there and run nothing")
    parser.add_argument("--no-rss", action="store_true", help="do not measure memory (sanitizers use a lot of it)")
    given = parser.parse_args()
    if given.kind == "corpus":
        corpus(given.keep or Path("corpus"))
        return 0
    if given.kind == "truncate":
        answer = truncations(given.n, given.stages, rss=not given.no_rss)
    elif given.keep is not None and given.only is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            path, target, _ = Cases(given.kind, given.seed, Path(folder)).write(given.only)
            shutil.copytree(path, given.keep, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, given.keep)
            print(f"{given.keep}: {target.name} is the mutated file", file=sys.stderr)
        return 0
    else:
        answer = mutate(given.kind, given.n, given.seed, given.stages, rss=not given.no_rss, only=given.only)
    print(json.dumps(answer), flush=True)
    return 1 if answer["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
