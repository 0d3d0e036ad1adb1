"""Gate 8 and the small ones: names, scripts, links, nothing of the machine it was written on."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tree import ROOT, SOURCE, parsed, python_files, texts, tracked

BANNED_FILES = {"utils", "util", "common", "misc", "helpers", "helper"}
BANNED_CLASS = re.compile(r"^Base[A-Z]|(Manager|Helper|Impl)$")
MACHINE = re.compile(r"/work/[a-z]|/tmp/brief|/opt/(pypi|wheels)|/root/")
HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|artifactory")


def test_names_are_plain():
    found = []
    for path in python_files("src", "tests", "bench"):
        if path.stem in BANNED_FILES:
            found.append(path.relative_to(ROOT).as_posix())
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and BANNED_CLASS.search(node.name):
                found.append(f"{path.relative_to(ROOT)}: class {node.name}")
    assert not found


def test_warnings_are_errors():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert settings["tool"]["mypy"]["strict"] is True
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import edgewise, edgewise.serve.cli, edgewise.base"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_scripts_can_be_run():
    scripts = [p for p in tracked() if p.parent in (ROOT / "scripts", ROOT / ".ci") and not p.name.startswith("_")]
    assert {p.name for p in scripts} >= {"run", "test", "check", "build", "bench", "size"}
    for path in scripts:
        first = path.read_text().partition("\n")[0]
        assert first.startswith("#!"), f"{path.name} names no interpreter"
        assert os.access(path, os.X_OK), f"{path.name} is not executable"
        if first.endswith("bash"):
            assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


@pytest.mark.parametrize("pattern", [MACHINE, HOSTS], ids=["machine paths", "registry hosts"])
def test_nothing_of_one_machine_is_in_the_repository(pattern):
    found = []
    for path, text in texts():
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line) and path != Path(__file__):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_links_in_documents_resolve():
    broken = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} → {target}")
    assert not broken, "\n".join(broken)


def test_help_lists_every_command():
    from edgewise.serve.cli import VERBS

    files = {p.stem for p in (SOURCE / "serve" / "commands").glob("*.py") if p.stem != "__init__"}
    assert files == set(VERBS)


def test_the_map_is_two_screens():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 100


def test_decision_records_have_numbers_of_their_own():
    numbers = [p.name[:4] for p in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers)), sorted(numbers)


def test_the_table_of_systems_is_whole():
    from edgewise.serve.commands.systems import rows

    table = rows()
    assert [row["number"] for row in table] == [str(i) for i in range(1, 63)]
    assert {row["status"] for row in table} <= {"planned", "started", "works", "retired"}
    for row in table:
        if row["status"] == "works":
            assert row["figure"] != "-", f"system {row['number']} says it works but shows no figure"
            assert row["command"] != "-", f"system {row['number']} says it works but names no command"
