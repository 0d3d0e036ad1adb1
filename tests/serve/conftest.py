"""The command line in this process: `cli("run", model, ...)` → exit code, standard output, standard error."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewise.serve.cli import main
from edgewise.testing.tiny import tiny_model


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs a verb with nothing on standard input, on the numpy device, away from the user's cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("EDGEWISE_DEVICE", "reference")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))

    def run(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a chat template."""
    folder = tiny_model("llama", tmp_path_factory.mktemp("models") / "plain")
    settings = folder / "tokenizer_config.json"
    import json

    content = json.loads(settings.read_text())
    content.pop("chat_template", None)
    settings.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template."""
    folder = tiny_model("llama", tmp_path_factory.mktemp("models") / "chatty", seed=1)
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    return folder
