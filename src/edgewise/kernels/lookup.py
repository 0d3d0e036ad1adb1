"""Where table lookup beats dot products: the usual answer, and the one that was measured on this machine.

Making the tables costs as much as some hundred rows gain, whatever the length of a row. So for each format and range of
columns the answer is one number: the least rows from which lookup pays. Rows of weights that meet the same activations
(queries, keys and values; gate and up) share the tables and count together. Bits do not depend on it.
"""

import os

from edgewise.kernels.choices import RANGES, Known, Question

# int4 has a lookup kernel too, but it is slower than dot products everywhere and needs coarser activations.
FORMATS = tuple(f"{name}:group={group}" for name in ("int1", "ternary", "int2", "int3") for group in (32, 64, 128))
ROWS = (64, 128, 256, 512, 1024, 2048, 4096)  # that a measurement tries
COLS = 2048  # of the weights that are measured
COLUMNS = (*RANGES, 128)  # one number of columns of each range
DOT, LOOKUP = "dot", "lookup"

Least = tuple[int | None, ...]  # rows for each range of columns; None: never

# Measured on Zen 4, one thread, weights in the second-level cache (`edgewise bench lookup`). A table is absent where
# lookup was never seen to win: without vpermb it takes four shuffles and three blends.
USUAL: dict[str, dict[str, Least]] = {
    "avx512_bf16": {
        "int1": (128, 128, 128, 128, 128, 128),
        "int1:group=32": (160, 192, 192, 192, 192, 192),
        "ternary": (256, 512, 768, 768, 768, 768),
        "ternary:group=32": (512, 1024, 1536, 1536, 1536, 1536),
        "int2": (320, 512, 768, 768, 768, 768),
        "int2:group=32": (512, 1536, 2048, 2048, 2048, 2048),
        "int3": (256, 1024, None, None, None, None),
    }
}


def last_cache_bytes() -> int:
    """Of the last-level cache as the C library knows it; 32 MiB where it does not."""
    try:
        return os.sysconf("SC_LEVEL3_CACHE_SIZE") or 32 << 20
    except (ValueError, OSError):  # other C libraries have no such name
        return 32 << 20


def usual(isa: str, fmt: str) -> Least:
    """What holds for a kernel table where nothing was measured; `fmt` with its group."""
    table = USUAL.get(isa, {})
    return table.get(fmt) or table.get(fmt.partition(":")[0]) or (None,) * len(COLUMNS)


def least_rows(known: Known, fmt: str) -> Least | None:
    """From answers for some of ROWS, found by halving; None where one is missing. `known` may measure."""
    found: list[int | None] = []
    for columns in COLUMNS:
        low, high = 0, len(ROWS)
        while low < high:
            middle = (low + high) // 2
            answer = known(Question("lookup", fmt, ROWS[middle], COLS, columns))
            if answer is None:
                return None
            low, high = (low, middle) if answer == LOOKUP else (middle + 1, high)
        found.append(ROWS[low] if low < len(ROWS) else None)
    return tuple(found)
