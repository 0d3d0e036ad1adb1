"""The front itself: help, verbs, flags and their variables, and every way to fail."""

import json
import os
import signal
import subprocess
import sys
import types

import pytest

import edgewise
from edgewise.base import OutOfRoom
from edgewise.serve import cli as front


def edgewise_process(*arguments, **options):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "edgewise", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=env, **options,
    )  # fmt: skip


def test_help_lists_every_verb_with_one_line(cli):
    ran = cli("--help")
    assert ran.code == 0
    for verb, line in front.VERBS.items():
        assert f"  {verb} " in ran.out
        assert line in ran.out
    assert cli().out == cli("help").out == cli("-h").out == ran.out


def test_help_imports_no_verb_and_no_heavy_library():
    script = (
        "import sys; from edgewise.serve.cli import main; main(['--help']); "
        "print([m for m in sys.modules if m.startswith('edgewise.serve.commands') "
        "or m.split('.')[0] in ('typer', 'numpy', 'tokenizers', 'huggingface_hub')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", front.VERBS)
def test_every_verb_explains_itself(cli, verb):
    ran = cli(verb, "--help")
    assert ran.code == 0, ran.err
    assert f"edgewise {verb}" in ran.out
    assert cli("help", verb).out == ran.out


def test_version(cli):
    assert edgewise.__version__ in cli("--version").out
    assert json.loads(cli("version", "--json").out)["edgewise"] == edgewise.__version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["'rnu'", "'run'"]),
        (["--verison"], ["option '--verison'"]),
        (["version", "--jsn"], ["--jsn", "--json"]),
        (["bench", "-n", "many"], ["--n-gen"]),
        (["run", "--max-tokens"], ["--max-tokens"]),
        (["score"], ["model"]),
    ],
)
def test_usage_errors_are_one_sentence_and_exit_2(cli, arguments, words):
    ran = cli(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("edgewise: ")
    for word in words:
        assert word in ran.err


def test_a_flag_is_also_a_variable_and_the_flag_wins(cli, monkeypatch):
    monkeypatch.setenv("EDGEWISE_JSON", "1")
    assert json.loads(cli("version").out)
    monkeypatch.setenv("EDGEWISE_JSON", "enabled")
    assert json.loads(cli("version").out)
    monkeypatch.setenv("EDGEWISE_N_GEN", "not a number")
    ran = cli("bench")
    assert ran.code == 2
    assert "--n-gen" in ran.err


def test_every_alias_is_a_variable():
    command = front.load("run")
    names = {name for parameter in command.params for name in parameter.envvar or []}
    assert {
        "EDGEWISE_MAX_TOKENS", "EDGEWISE_N_PREDICT", "EDGEWISE_CTX_SIZE", "EDGEWISE_MAX_MODEL_LEN", "EDGEWISE_TEMP",
        "EDGEWISE_TEMPERATURE", "EDGEWISE_THREADS", "EDGEWISE_KV_CACHE_DTYPE", "EDGEWISE_SPECULATOR",
    } <= names  # fmt: skip


def fake_verb(monkeypatch, function):
    module = types.ModuleType("edgewise.serve.commands.fake")
    module.command = function
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(front.VERBS, "fake", "for this test")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OutOfRoom("It does\nnot fit."), 2, "It does not fit."),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), 2, "x.txt"),
        (MemoryError(), 2, "memory"),
        (KeyError("surprise"), 1, "Internal error, KeyError"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_becomes_a_sentence(cli, monkeypatch, error, code, words):
    def fail() -> None:
        raise error

    fake_verb(monkeypatch, fail)
    ran = cli("fake")
    assert ran.code == code
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.count("\n") <= 1


def test_debug_lets_the_traceback_through(cli, monkeypatch):
    def fail() -> None:
        raise OutOfRoom("full")

    fake_verb(monkeypatch, fail)
    monkeypatch.setenv("EDGEWISE_DEBUG", "1")
    with pytest.raises(OutOfRoom):
        cli("fake")


def test_warnings_are_one_line(cli, monkeypatch):
    import warnings

    def warn() -> None:
        with warnings.catch_warnings(action="always"):
            warnings.warn("mind the gap", stacklevel=1)

    fake_verb(monkeypatch, warn)
    ran = cli("fake")
    assert (ran.code, ran.err) == (0, "edgewise: warning: mind the gap\n")


def test_a_closed_pipe_is_quiet():
    with edgewise_process("systems", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=60)
    assert err == ""
    assert process.returncode in (141, -signal.SIGPIPE)


def test_python_dash_m():
    with edgewise_process("--version") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert edgewise.__version__ in out
