"""The token `[TOOL_CALLS]`, then a list of calls: Mistral's models up to its tokenizer version 7.

Paper:  https://docs.mistral.ai/capabilities/function_calling
Exact.
Needs:  a chat template that says `[TOOL_CALLS]`
Cost:   a grammar's, see decode/rules/constrained.py
Status: kept
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.text.tools.api import Spelling, Tool, ToolParser
from edgewise.text.tools.calls import CallParser, answer_grammar, call_rules, random_id

OPENING = "[TOOL_CALLS]"


class MistralFormat:
    @classmethod
    def fits(cls, template: str) -> bool:
        return OPENING in template and "[ARGS]" not in template  # the later versions' way: a name, then [ARGS]

    def grammar(
        self, tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
    ) -> str:
        opening, rules = spelling(OPENING), call_rules(tools, "arguments")
        more = f' (", " tool){{0,{most - 1}}}' if most > 1 else ""
        rest = f'" "? "[" tool{more} "]"'
        return answer_grammar(OPENING, opening, rest, rules, forced=forced, content=content)

    def parser(self) -> ToolParser:
        return CallParser(OPENING, "]", many=True)

    def call_id(self) -> str:
        return random_id(9)  # its templates take no other length

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        return None
