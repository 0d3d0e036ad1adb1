"""Calls between tags, whoever says so."""

from collections.abc import Sequence

from edgewise.text.tools.api import Spelling, Tool, ToolParser
from edgewise.text.tools.calls import CallParser, answer_grammar, call_rules, random_id

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class TagFormat:
    def grammar(
        self, tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
    ) -> str:
        opening, closing = spelling(OPENING), spelling(CLOSING)
        inner = '"\\n" tool "\\n"'
        more = f' ("\\n" {opening} {inner} {closing}){{0,{most - 1}}}' if most > 1 else ""
        rest = f"{inner} {closing}{more}"
        rules = call_rules(tools, "arguments")
        return answer_grammar(OPENING, opening, rest, rules, forced=forced, content=content)

    def parser(self) -> ToolParser:
        return CallParser(OPENING, CLOSING)

    def call_id(self) -> str:
        return f"call_{random_id(24)}"
