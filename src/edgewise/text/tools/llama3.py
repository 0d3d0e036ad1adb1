"""The whole answer is one object with a name and its parameters: Llama 3.1 to 3.3.

Paper:  https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1 (JSON based tool calling)
Exact.
Needs:  a chat template of this family
Cost:   a grammar's, see decode/rules/constrained.py
Status: kept
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.base import BadInput
from edgewise.text.tools.api import Spelling, Tool, ToolParser
from edgewise.text.tools.calls import TEXT, CallParser, call_rules, random_id

FIRST = '{"name": "'
NOT_FIRST = r'/\{"name": "(.|\n)*/'


class Llama3Format:
    @classmethod
    def fits(cls, template: str) -> bool:
        return "<|python_tag|>" in template or '{"name": function name, "parameters":' in template

    def grammar(
        self, tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
    ) -> str:
        """One call: these models were not trained to make several at once."""
        rules = call_rules(tools, "parameters")
        if forced:
            return f"start: tool\n{rules}"
        if content is not None:
            raise BadInput(
                "this model's calls look like JSON answers, so a JSON format and tools exclude each other; "
                "set tool_choice to none or required."
            )
        return f"start: TEXT | tool\nTEXT: {TEXT} & ~{NOT_FIRST}\n{rules}"

    def parser(self) -> ToolParser:
        return CallParser("", "", first=FIRST)

    def call_id(self) -> str:
        return f"call_{random_id(24)}"

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        return None
