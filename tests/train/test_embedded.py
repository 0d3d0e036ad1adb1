"""The model in the package: there, small enough, and a file that its own reader opens."""

from pathlib import Path

import pytest

import edgewise.embedded as embedded
from edgewise.base import BadInput


def test_the_file_is_small_enough_and_shaped_as_promised() -> None:
    gguf = pytest.importorskip("gguf")
    try:
        file = embedded.embedded_model()
    except BadInput as error:
        pytest.skip(str(error))
    assert sum(p.stat().st_size for p in file.parent.rglob("*") if p.is_file()) <= 12_000_000
    fields = gguf.GGUFReader(file).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.context_length"].contents() >= 1024
    assert 4_000 <= len(fields["tokenizer.ggml.tokens"].contents()) <= 8_192


def test_a_missing_file_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(BadInput, match="no embedded model"):
        embedded.embedded_model()
    with pytest.raises(BadInput, match="no draft model"):
        embedded.embedded_draft()
