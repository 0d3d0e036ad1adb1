"""Structure-aware mutation of model files (rows R01 to R03): build a valid file, change one to three fields, write it.

Byte flips die at the magic number; a file whose fields lie reaches the code behind the checks. Every file is a function
of (kind, seed, number), so a failure is a seed. `python -m edgewise.testing.mutate gguf --n 20000 --seed 1` runs them
in forked processes and prints one JSON line; `... gguf --seed 1 --only 123 --keep DIR` writes case 123 to look at.
"""

# What overflow bugs in other loaders were made of (CVE-2025-53630, CVE-2026-27940, ...).
EXTREMES = (
    0, 1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**42 + 1,
    2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 32, 2**64 - 1,
)  # fmt: skip
