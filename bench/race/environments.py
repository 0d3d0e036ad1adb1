"""Virtual environments, one a peer, made on demand under a folder that git ignores."""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from race.children import Failed, last_line

ASK = """
import sys
from importlib.metadata import PackageNotFoundError, version
for wanted in sys.argv[1:]:
    name, _, number = wanted.partition("==")
    try:
        found = version(name)
    except PackageNotFoundError:
        raise SystemExit(1)
    if number and found.split("+")[0] != number:
        raise SystemExit(1)
"""


def environment(
    folder: Path, steps: Sequence[Sequence[str]], flags: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Path:
    """The interpreter of an environment that has the packages. steps: what each call of pip installs, in this order.

    flags: more arguments for pip. Raises Failed with pip's last words.
    """
    python = folder / "bin" / "python"
    wanted = [package for step in steps for package in step]
    if python.exists() and subprocess.run([python, "-c", ASK, *wanted], check=False).returncode == 0:
        return python
    print(f"installing {', '.join(wanted)} into {folder} (minutes, once)", file=sys.stderr)
    venv.create(folder, with_pip=True)
    for step in steps:
        run([python, "-m", "pip", "install", "-q", *flags, *step], "pip", env)
    return python


def run(command: Sequence[str | Path], what: str, env: Mapping[str, str] | None = None) -> None:
    """A command whose output goes nowhere unless it fails: then Failed carries the end of it."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            env=clean({**os.environ, **(env or {})}),
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"{what}: {error}") from None
    if done.returncode:
        raise Failed(f"{what} ended with exit code {done.returncode}: {last_line(done.stdout)}")


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """Without what belongs to our own interpreter, and with the hub switched off: everything is local."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    return {key: value for key, value in env.items() if key not in ours} | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
