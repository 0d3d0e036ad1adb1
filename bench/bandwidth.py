"""Prints the machine's read bandwidth for 1 to N threads: `python bench/bandwidth.py [-t THREADS] [--json]`."""

import argparse
import json
import os

from edgewise.serve.probe import read_bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-r", "--passes", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        {"threads": threads, "gb_s": round(read_bandwidth(threads, passes=options.passes), 2)}
        for threads in range(1, options.threads + 1)
    ]
    if options.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(f"{row['threads']} threads: {row['gb_s']:.1f} GB/s")


if __name__ == "__main__":
    main()
