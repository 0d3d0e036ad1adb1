"""The grammar of calls between tags."""

from collections.abc import Sequence

from edgewise.text.tools.api import Spelling, Tool
from edgewise.text.tools.calls import TEXT, call_rules, quoted

OPENING, CLOSING = "<tool_call>", "</tool_call>"


def tag_grammar(
    tools: Sequence[Tool], spelling: Spelling, *, forced: bool, most: int, content: str | None = None
) -> str:
    opening, closing = spelling(OPENING), spelling(CLOSING)
    inner = '"\\n" tool "\\n"'
    more = f' ("\\n" {opening} {inner} {closing}){{0,{most - 1}}}' if most > 1 else ""
    rest = f"{inner} {closing}{more}"
    rules = call_rules(tools, "arguments")
    if forced:
        return f"start: {opening} {rest}\n{rules}"
    if content is not None:
        return f"start: content | {opening} {rest}\ncontent: {content}\n{rules}"
    if opening == quoted(OPENING):
        return f"start: TEXT | lead {rest}\nlead[lazy]: TEXT {opening}\nTEXT: {TEXT}\n{rules}"
    return f"start: TEXT | TEXT {opening} {rest}\nTEXT: {TEXT}\n{rules}"
