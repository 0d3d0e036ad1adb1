"""Memory limits of control groups, versions 1 and 2, from trees of files like the kernel's."""

import pytest

from edgewise.base import limits

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes /proc and /sys/fs/cgroup: a machine of 8 GiB in the given groups with the given limits."""
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {8 * GIB // 1024} kB\nMemFree: 1 kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(limits, "ROOT", root)
    monkeypatch.setattr(limits, "PROC", proc)

    def make(groups, files):
        (proc / "self/cgroup").write_text(groups)
        root.mkdir(exist_ok=True)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return limits.memory_limit_bytes()

    return make


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max"}, None),
        ("0::/a/b\n", {"a/b/memory.max": GIB}, GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": 2 * GIB}, 2 * GIB),  # of the outer group
        ("0::/a/b\n", {"a/b/memory.max": 3 * GIB, "a/memory.max": 2 * GIB}, 2 * GIB),
        ("0::/a\n", {"a/memory.max": 9 * GIB}, None),  # more than there is
        ("0::/gone/b\n", {"memory.max": GIB}, GIB),  # a container sees only its own folder
        ("4:memory:/d/x\n3:cpu,cpuacct:/d\n", {"memory/d/x/memory.limit_in_bytes": GIB}, GIB),
        ("4:memory:/d/x\n", {"memory/memory.limit_in_bytes": 4 * GIB}, 4 * GIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, None),
        ("0::/../../b\n", {"b/memory.max": GIB}, GIB),  # above our own root: nothing outside is looked at
        ("nonsense\n", {"memory.max": GIB}, None),
    ],
)
def test_the_smallest_limit_counts(machine, groups, files, limit):
    assert machine(groups, files) == limit


def test_what_may_be_filled_is_the_smaller_of_machine_and_group(machine, monkeypatch):
    machine("0::/a\n", {"a/memory.max": 12345678})
    assert limits.memory_bytes() == 12345678
    monkeypatch.setattr(limits, "memory_limit_bytes", lambda: None)
    assert limits.memory_bytes() > 12345678


def test_what_is_free_is_what_machine_and_groups_leave(machine):
    (limits.PROC / "meminfo").write_text(f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {5 * GIB // 1024} kB\n")
    machine("0::/a\n", {})
    assert limits.free_bytes() == 5 * GIB
    machine("0::/a\n", {"a/memory.max": GIB, "a/memory.current": GIB // 2, "a/memory.stat": "inactive_file 1000"})
    assert limits.free_bytes() == GIB // 2 + 1000
    machine("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": 900, "memory/a/memory.usage_in_bytes": 1000})
    assert limits.free_bytes() == 0
