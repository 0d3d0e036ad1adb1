"""What CPU this is, read from Linux's own files, and a fingerprint of all that a measurement depends on."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from edgewise.base.limits import read
from edgewise.kernels.extension import native_path

CPUS = Path("/sys/devices/system/cpu")
# An ELF note of type 3 by the owner "GNU": the linker's hash of the whole library, 20 bytes, near the file's beginning.
BUILD_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"


def cpu_model() -> str:
    for line in (read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    for line in (read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def caches() -> dict[str, str]:
    """Cache sizes seen by CPU 0, for example {"L1d": "32K", "L3": "32768K"}."""
    found = {}
    for folder in sorted((CPUS / "cpu0" / "cache").glob("index*")):
        kind = (read(folder / "type") or "")[:1].lower()
        suffix = kind if kind in ("d", "i") else ""
        found[f"L{read(folder / 'level')}{suffix}"] = read(folder / "size") or "?"
    return found


def last_cache_bytes() -> int:
    """Bytes of the largest cache that CPU 0 sees; 32 MiB where nothing is known."""
    sizes = [size for size in caches().values() if size[:-1].isdigit() and size[-1] in "KM"]
    return max((int(size[:-1]) << (10 if size[-1] == "K" else 20) for size in sizes), default=32 << 20)


def build() -> str:
    """A hash that changes with the compiled extension; "none" without one."""
    origin = native_path()
    if origin is None:
        return "none"
    try:
        with open(origin, "rb") as file:
            head = file.read(1 << 16)
            note = head.find(BUILD_NOTE)
            if note >= 0:
                return head[note + len(BUILD_NOTE) :][:20].hex()
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()[:40]
    except OSError:
        return "unreadable"


@dataclass(frozen=True)
class Fingerprint:
    """What a measured time depends on. Another value of any of it is another machine."""

    model: str
    machine: str
    flags: str  # hash of the sorted instruction-set flags
    caches: str
    threads: int
    table: str  # of kernels, as in DeviceInfo.isa
    build: str

    @property
    def name(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(threads: int, table: str) -> Fingerprint:
    """Of this CPU with so many threads and this kernel table."""
    flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:16]
    sizes = ", ".join(f"{name} {size}" for name, size in caches().items())
    return Fingerprint(cpu_model(), platform.machine(), flags, sizes, threads, table, build())
