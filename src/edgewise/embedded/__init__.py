"""The models that travel in the package: `edgewise run` without an argument completes PROMPT with the one, the other
drafts for it (`--speculator draft`)."""

from pathlib import Path

from edgewise.base import BadInput

PROMPT = '''def add(x, y):
    """Return the sum of x and y."""
'''


def embedded_model() -> Path:
    """The path of the embedded GGUF file. Raises BadInput when this installation lacks it."""
    file = Path(__file__).parent / "base.gguf"
    if not file.is_file():
        raise BadInput(
            f"This installation carries no embedded model ({file} is missing). Name a model, reinstall the package, "
            "or train one: python -m edgewise.train base --to src/edgewise/embedded/base.gguf."
        )
    return file


def embedded_draft() -> Path:
    """The path of the embedded draft model's GGUF file. Raises BadInput when this installation lacks it."""
    file = Path(__file__).parent / "draft" / "draft.gguf"
    if not file.is_file():
        raise BadInput(f"This installation carries no draft model ({file} is missing). Name one: draft:model=PATH.")
    return file
