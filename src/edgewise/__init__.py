"""edgewise runs language models on machines that are too small for them."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "StructuredOutputsParams", "__version__"]

if TYPE_CHECKING:
    from edgewise.base import SamplingParams, StructuredOutputsParams
    from edgewise.serve.llm import LLM


def __getattr__(name: str) -> Any:  # lazily, so that `import edgewise` and `edgewise --help` stay fast
    if name == "LLM":
        from edgewise.serve.llm import LLM

        return LLM
    if name in ("SamplingParams", "StructuredOutputsParams"):
        from edgewise import base

        return getattr(base, name)
    raise AttributeError(f"module 'edgewise' has no attribute '{name}'")
