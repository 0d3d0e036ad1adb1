"""Facts about this machine, read from Linux's own files. Every reader returns None where the kernel tells nothing."""

import os
from pathlib import Path

from edgewise.base.limits import cgroups, meminfo, memory_limit_bytes, read
from edgewise.plan.probe import caches, cpu_flags, cpu_model

__all__ = [
    "caches", "cgroups", "cpu_flags", "cpu_model", "cpu_quota", "cpus", "huge_pages", "meminfo", "memory_limit_bytes",
    "read",
]


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


def huge_pages() -> str | None:
    """The transparent huge page setting in force: always, madvise or never."""
    text = read(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or ""
    return text.partition("[")[2].partition("]")[0] or None
