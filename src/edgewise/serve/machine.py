"""Facts about this machine, read from Linux's own files. Every reader returns None where the kernel tells nothing."""

import os
import platform
from pathlib import Path


def cpus() -> list[int]:
    """The CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """CPUs' worth of time that the control group allows, when it limits it."""
    for folder in cgroups():
        text = read(folder / "cpu.max")  # version 2: "quota period" or "max period"
        if text and not text.startswith("max"):
            quota, period = text.split()
            return int(quota) / int(period)
        quota_us, period_us = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")  # version 1
        if quota_us and period_us and int(quota_us) > 0:
            return int(quota_us) / int(period_us)
    return None


def memory_limit_bytes() -> int | None:
    """The control group's memory limit, when it is below the machine's memory."""
    total = meminfo().get("MemTotal")
    for folder in cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = read(folder / name)
            if text and text.isdigit() and (total is None or int(text) < total):
                return int(text)
    return None


def cgroups() -> list[Path]:
    """Folders of the control groups this process is in, version 1 and 2."""
    root = Path("/sys/fs/cgroup")
    folders = []
    for line in (read(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [root / controllers, root / "unified"] if controllers else [root, root / "unified"]
        if controllers in ("cpu,cpuacct", "cpu", "memory", ""):
            mounts += [root / "cpu"] if controllers.startswith("cpu") else []
            for mount in mounts:
                folders += [mount / path.lstrip("/"), mount]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in (read(Path("/proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = int(fields[0]) * (1024 if fields[-1] == "kB" else 1)
    return found


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
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (read(folder / "type") or "")[:1].lower()
        suffix = kind if kind in ("d", "i") else ""
        found[f"L{read(folder / 'level')}{suffix}"] = read(folder / "size") or "?"
    return found


def huge_pages() -> str | None:
    """The transparent huge page setting in force: always, madvise or never."""
    text = read(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or ""
    return text.partition("[")[2].partition("]")[0] or None


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
