"""Calls between `<tool_call>` and `</tool_call>`: Hermes, Qwen 2.5 and 3, and many that were trained like them.

Paper:  https://github.com/NousResearch/Hermes-Function-Calling
Exact.
Needs:  a chat template that says `<tool_call>`
Cost:   a grammar's, see decode/rules/constrained.py
Status: kept
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.text.tools.api import Spelling, Tool, ToolParser
from edgewise.text.tools.calls import CallParser, random_id
from edgewise.text.tools.tags import CLOSING, OPENING, tag_grammar


class HermesFormat:
    @classmethod
    def fits(cls, template: str) -> bool:
        return OPENING in template and "<function=" not in template  # Qwen3-Coder's own kind of XML between the tags

    def grammar(
        self, tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
    ) -> str:
        return tag_grammar(tools, spelling, forced=forced, most=most, content=content)

    def parser(self) -> ToolParser:
        return CallParser(OPENING, CLOSING)

    def call_id(self) -> str:
        return f"call_{random_id(24)}"

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        return None
