"""`scripts/soak [ROW…] [--small] [--seed N]`: one JSON line a row: row, asked, got, ok, seconds. Exit 1 when one fails.

bound95: with 95 % confidence the true rate of failures is below it (3 / n when nothing failed).
"""

import argparse
import json
import sys
import time
import traceback

from edgewise.testing.mutate.forks import bound95
from edgewise.testing.soak import ASKED, Found
from edgewise.testing.soak.rows import ROWS


def run(name: str, small: bool, seed: int) -> dict[str, object]:
    begin = time.monotonic()
    try:
        found = ROWS[name](small, seed)
    except Exception as problem:
        traceback.print_exc()
        found = Found(1, 1, f"{type(problem).__name__}: {problem}", False)
    return {
        "row": name, "asked": ASKED[name], "got": found.got, "ok": found.ok,
        "seconds": round(time.monotonic() - begin, 1), "n": found.n, "fail": found.fail,
        "bound95": bound95(found.fail, found.n), "size": "small" if small else "full", "seed": seed,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--small", action="store_true", help="the size of the tests, seconds in all")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    names = [name.upper() for name in given.rows] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]}; there is {', '.join(ROWS)}")
    fine = True
    for name in names:
        line = run(name, given.small, given.seed)
        fine &= bool(line["ok"])
        print(json.dumps(line, ensure_ascii=False), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
