"""Matmul rates of the CPU device, and the verify curve: what N columns cost beside one.

    python bench/matmul.py --formats Q4_0,Q8_0 --columns 1,2,4,8,16,32 --threads 2 --rows 8192 --cols 2048 --mib 200

Several matrices, together larger than the caches, are visited in turn, as a model does. The numbers of columns take
turns as well, so that drift hits all of them. Printed for each: median time of one matrix, GB/s of packed weights,
their share of the read bandwidth that was probed before and after the format, GOPS (one multiply-add is two
operations), and T(N)/T(1), where 1 is among the columns: what checking N drafted tokens, or a step of N sequences,
costs in this matmul.
"""

import argparse
import statistics
import time

import numpy as np

from edgewise.kernels import formats
from edgewise.kernels.devices.cpu import DIRECT, CpuDevice
from edgewise.serve.probe import read_bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--formats", default="Q4_0,Q8_0,Q4_K,Q6_K,BF16,F32,int2,int3,int4,int8", help="a comma-separated list"
    )
    parser.add_argument(
        "--columns", default="1,2,3,4,5,6,7,8,12,16,24,32", help="numbers of columns, or 'all': 1 to 32"
    )
    parser.add_argument("--threads", type=int, help="default: the physical cores that this process may use")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--cols", type=int, default=2048)
    parser.add_argument("--mib", type=int, default=200, help="weights in flight; small enough, they stay in a cache")
    parser.add_argument("--seconds", type=float, default=0.5, help="of measuring per figure; every figure has 3 rounds")
    args = parser.parse_args()
    wanted = args.formats.split(",")
    if unknown := [fmt for fmt in wanted if fmt.partition(":")[0] not in DIRECT]:
        parser.error(f"no kernels for {', '.join(unknown)}; there are some for {', '.join(DIRECT)}")
    columns = list(range(1, 33)) if args.columns == "all" else [int(n) for n in args.columns.split(",")]
    device = CpuDevice(args.threads)
    print(f"isa {device.isa}  threads {device.threads}  matrix {args.rows} x {args.cols}")
    for fmt in wanted:
        before = read_bandwidth(device.threads)
        weight_bytes, seconds = times(device, fmt, (args.rows, args.cols), columns, args.mib << 20, args.seconds)
        after = read_bandwidth(device.threads)
        print(f"{fmt}  read bandwidth {before:.1f} GB/s before, {after:.1f} after")
        print("     N         us    GB/s  of roof    GOPS  T(N)/T(1)")
        for n in columns:
            rate = weight_bytes / seconds[n] / 1e9
            curve = f"{seconds[n] / seconds[1]:9.2f}" if 1 in seconds else ""
            print(
                f"  {n:4} {seconds[n] * 1e6:10.1f} {rate:7.1f} {rate / (before + after) * 200:7.0f}% "
                f"{2 * args.rows * args.cols * n / seconds[n] / 1e9:7.0f}  {curve}",
                flush=True,
            )


def times(
    device: CpuDevice, fmt: str, shape: tuple[int, int], columns: list[int], flight: int, budget: float
) -> tuple[int, dict[int, float]]:
    """Packed bytes of one matrix, and for each number of columns the median seconds that it takes."""
    rng = np.random.default_rng(0)
    nbytes = formats.nbytes(fmt, shape[0] * shape[1])
    stored = rng.integers(0, 60, nbytes, dtype=np.uint8)  # small bytes: no NaN or infinity among the scales
    count = max(1, flight // nbytes)
    weights = [device.load(shape, fmt, lambda at, n: stored[at : at + n]) for _ in range(count)]
    inputs = {n: device.upload(rng.normal(size=(n, shape[1])).astype(np.float32)) for n in columns}
    rounds: dict[int, list[float]] = {n: [] for n in columns}
    for x in inputs.values():
        device.linear(x, weights[0])
    end = time.perf_counter() + budget * len(columns)
    while len(rounds[columns[0]]) < 3 or time.perf_counter() < end:
        for n, x in inputs.items():
            begin = time.perf_counter()
            for w in weights:
                device.linear(x, w)
            rounds[n].append((time.perf_counter() - begin) / count)
    return weights[0].nbytes, {n: statistics.median(taken) for n, taken in rounds.items()}


if __name__ == "__main__":
    main()
