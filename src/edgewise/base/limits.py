"""What Linux lets this process use: memory and time, of the machine and of its control groups (versions 1 and 2)."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in (read(PROC / "meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = int(fields[0]) * (1024 if fields[-1] == "kB" else 1)
    return found


def cgroups() -> list[Path]:
    """Folders of the control groups this process is in, innermost first, and of the groups these lie in."""
    folders: list[Path] = []
    for line in (read(PROC / "self/cgroup") or "").splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers not in ("cpu,cpuacct", "cpu", "memory", ""):
            continue
        mounts = [ROOT / controllers, ROOT / "unified"] if controllers else [ROOT, ROOT / "unified"]
        mounts += [ROOT / "cpu"] if controllers.startswith("cpu") else []
        folders += [folder for mount in mounts for folder in _upwards(mount, path)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """mount/a/b, mount/a, mount: a limit of an outer group holds as well. In a container the path may not be there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def memory_limit_bytes() -> int | None:
    """The smallest memory limit of our control groups, when it is below the machine's memory."""
    total = meminfo().get("MemTotal")
    limits = []
    for folder in cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = read(folder / name)
            if text and text.isdigit() and (total is None or int(text) < total):
                limits.append(int(text))
    return min(limits, default=None)


def memory_bytes() -> int:
    """Bytes that this process may fill: the machine's physical memory, or less where a control group allows less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, memory_limit_bytes() or physical)


def free_bytes() -> int | None:
    """What this process could still fill without others being pushed out: the machine's available memory, or less where
    a control group has less left; page cache that can go counts as free. None where /proc does not say."""
    available = meminfo().get("MemAvailable")
    if available is None:
        return None
    left = [available]
    for folder in cgroups():
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, now = read(folder / limit), read(folder / used)
            if most and most.isdigit() and now and now.isdigit():
                lines = (read(folder / "memory.stat") or "").splitlines()
                idle = sum(int(line.split()[1]) for line in lines if line.startswith(cache + " "))
                left.append(int(most) - int(now) + idle)
    return max(0, min(left))


def resident_bytes() -> int:
    """Memory of this process now, code included; 0 where /proc does not say."""
    fields = (read(PROC / "self/statm") or "").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def peak_resident_bytes() -> int:
    """The most memory this process ever had (VmHWM); unlike ru_maxrss it does not remember who started it."""
    for line in (read(PROC / "self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
