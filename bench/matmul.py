"""Matmul rates of the CPU device: GB/s of weights read and GOPS, per format and number of columns.

    python bench/matmul.py --formats Q4_0,Q8_0 --columns 1,2,4,8,32,512 --threads 2 --rows 8192 --cols 2048 --mib 200

Several matrices, together larger than the caches, are visited in turn, as a model does. Figures are the median over
short rounds; one multiply-add is two operations. Print the machine's bandwidth state beside any figure you keep.
"""

import argparse
import statistics
import time

import numpy as np

from edgewise.kernels import formats
from edgewise.kernels.devices.cpu import DIRECT, CpuDevice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default="Q4_0,Q8_0,Q4_K,Q6_K,BF16,F32,int2,int3,int4,int8")
    parser.add_argument("--columns", default="1,2,4,8,32,512")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--cols", type=int, default=2048)
    parser.add_argument("--mib", type=int, default=200, help="weights in flight")
    parser.add_argument("--seconds", type=float, default=0.5, help="per figure")
    args = parser.parse_args()
    device = CpuDevice(args.threads)
    print(f"isa {device.isa}  threads {device.threads}  matrix {args.rows} x {args.cols}")
    rng = np.random.default_rng(0)
    for fmt in args.formats.split(","):
        assert fmt.partition(":")[0] in DIRECT, fmt
        nbytes = formats.nbytes(fmt, args.rows * args.cols)
        stored = rng.integers(0, 60, nbytes, dtype=np.uint8)  # small bytes: no NaN or infinity among the scales
        count = max(1, (args.mib << 20) // nbytes)
        shape = (args.rows, args.cols)
        weights = [device.load(shape, fmt, lambda at, n, s=stored: s[at : at + n]) for _ in range(count)]
        for columns in map(int, args.columns.split(",")):
            x = device.upload(rng.normal(size=(columns, args.cols)).astype(np.float32))
            for w in weights[:2]:
                device.linear(x, w)
            times, end = [], time.perf_counter() + args.seconds
            while not times or time.perf_counter() < end:
                begin = time.perf_counter()
                for w in weights:
                    device.linear(x, w)
                times.append((time.perf_counter() - begin) / count)
                if times[-1] * count > args.seconds:
                    break
            seconds = statistics.median(times)
            gops = 2 * args.rows * args.cols * columns / seconds / 1e9
            print(f"{fmt:13} N={columns:<4} {seconds * 1e6:9.0f} us  {weights[0].nbytes / seconds / 1e9:6.1f} GB/s  "
                  f"{gops:7.0f} GOPS", flush=True)


if __name__ == "__main__":
    main()
