"""How models of different families call tools. `tool_format` finds a template's own."""

from edgewise.base import Catalog, Unsupported
from edgewise.text.tools.api import Part, Tool, ToolFormat, ToolParser

TOOL_FORMATS = Catalog("tool_format", __name__, {
    "hermes": ".hermes:HermesFormat",
    "llama3": ".llama3:Llama3Format",
    "mistral": ".mistral:MistralFormat",
    "none": ".none:NoFormat",
})  # fmt: skip


def tool_format(template: str) -> ToolFormat:
    """The first that knows this template by its marks. Raises Unsupported for one that writes calls in its own way."""
    for name in TOOL_FORMATS:
        member = TOOL_FORMATS.load(name)
        if member.fits(template):
            made: ToolFormat = member()
            return made
    raise Unsupported(
        f"This model's chat template calls tools in a way that is not known here. Known: {', '.join(TOOL_FORMATS)}."
    )


__all__ = ["TOOL_FORMATS", "Part", "Tool", "ToolFormat", "ToolParser", "tool_format"]
