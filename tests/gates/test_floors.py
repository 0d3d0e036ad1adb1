"""Gate 1: rooms import only lower floors; members of a slot do not know each other; only kernels sees the extension."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from tree import ROOT, SOURCE, catalogs, file_of, members, python_files

needs_linter = pytest.mark.skipif(find_spec("importlinter") is None, reason="import-linter (extra dev) is missing")


@needs_linter
def test_the_house_has_floors():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def graph():
    if find_spec("grimp") is None:
        pytest.skip("grimp is not installed (it comes with import-linter, extra dev)")
    import grimp

    return grimp.build_graph("edgewise", cache_dir=None)


def test_only_kernels_sees_the_extension():
    forms = re.compile(r"^\s*(import edgewise\._native|from edgewise\._native |from edgewise import .*_native)", re.M)
    rooms = {p.relative_to(SOURCE).parts[0] for p in python_files("src") if forms.search(p.read_text(encoding="utf-8"))}
    assert rooms <= {"kernels"}


# These are the plain member with another system call below it: one that fails or is slow on purpose, io_uring, or one
# that is announced.
WRAPPERS = {
    (f"edgewise.weights.sources.{name}", "edgewise.weights.sources.file")
    for name in ("faulty", "slow", "uring", "cached")
}


def test_members_of_a_slot_do_not_know_each_other(graph):
    known = []
    by_slot: dict[str, set[str]] = {}
    for slot, _, module, _ in members():
        by_slot.setdefault(slot, set()).add(module)
    for slot, modules in by_slot.items():
        for module in modules & graph.modules:
            for other in graph.find_modules_directly_imported_by(module) & modules - {module}:
                if (module, other) not in WRAPPERS:
                    known.append(f"{slot}: {module} imports {other}")
    assert not known, "a slot whose members import each other is cut wrong: " + "; ".join(known)


def test_every_member_has_its_own_file():
    assert catalogs(), "no catalog was found at all"
    missing = [module for _, _, module, _ in members() if not file_of(module).is_file()]
    assert not missing
