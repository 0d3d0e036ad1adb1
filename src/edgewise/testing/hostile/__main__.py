"""`python -m edgewise.testing.hostile [NAME]` → one JSON line; exit 1 when any bundle got through."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from edgewise.testing.hostile.bundles import BUNDLES, Bundle, prepare
from edgewise.testing.hostile.watch import FORBIDDEN, Audit, Inotify
from edgewise.testing.mutate.forks import begin, run_cases
from edgewise.testing.mutate.loading import stages, use
from edgewise.testing.tiny import tiny_model


def check(bundle: Bundle, names: list[str], folder: Path, inner: Path) -> tuple[int, str]:
    """Builds and opens one bundle, watched. Raises AssertionError for whatever it got through with."""
    place = prepare(bundle, folder, inner)
    start = place.model / "start"
    path = start if start.is_symlink() else place.model
    watched = Inotify([place.outside, place.model])
    audit = Audit([place.model])
    here = Path.cwd()
    os.chdir(place.model)  # where `import numpy` would find the model's own numpy.py, if the folder were on the path
    begin()
    audit.on = True
    try:
        outcome = use(path, names)
    finally:
        audit.on = False
        os.chdir(here)
    wrong = list(audit.violations)
    for seen in watched.events():
        if seen.parent == place.outside:
            wrong.append(f"touched {seen} outside the model's folder")
        elif seen.suffix in FORBIDDEN:
            wrong.append(f"opened {seen.name}")
    watched.close()
    if place.canary.exists():
        wrong.append("the canary is there: code ran")
    if bundle.expect == "loads" and outcome != "loaded":
        wrong.append(f"should load but was refused at '{outcome}'")
    if bundle.expect == "refused" and outcome == "loaded":
        wrong.append("should be refused but loaded")
    assert not wrong, f"{bundle.name}: " + "; ".join(wrong)
    return sum(f.lstat().st_size for f in place.model.rglob("*") if f.is_file() and f.lstat().st_blocks), outcome


def hostile(bundles: Sequence[Bundle], wanted: str = "all", *, rss: bool = True) -> dict[str, object]:
    """Opens every bundle in a forked process; gives the line to print."""
    names = stages(wanted)
    with tempfile.TemporaryDirectory() as root:
        control = tiny_model("llama", Path(root) / "control")

        def run(number: int) -> tuple[int, str]:
            if number < 0:
                return 0, use(control, names)
            return check(bundles[number], names, Path(root) / f"{number}-{os.getpid()}", control)

        failures, outcomes = run_cases(range(len(bundles)), run, control=-1, batch=12, rss=rss)
    return {
        "row": "R04", "n": len(bundles), "fail": len(failures), "stages": names, "outcomes": dict(outcomes),
        "failures": [[bundles[f.case].name, f.what] for f in failures],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgewise.testing.hostile", description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="only bundles whose name contains this")
    parser.add_argument("--stages", default="all")
    parser.add_argument("--no-rss", action="store_true")
    given = parser.parse_args()
    chosen = [b for b in BUNDLES if given.name in b.name]
    answer = hostile(chosen, given.stages, rss=not given.no_rss)
    print(json.dumps(answer), flush=True)
    return 1 if answer["fail"] or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
