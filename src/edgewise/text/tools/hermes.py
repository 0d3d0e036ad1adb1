"""Calls between `<tool_call>` and `</tool_call>`: Hermes, Qwen 2.5 and 3, and many that were trained like them.

Paper:  https://github.com/NousResearch/Hermes-Function-Calling
Exact.
Needs:  a chat template that says `<tool_call>`
Cost:   a grammar's, see decode/rules/constrained.py
Status: kept
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.text.tools.tags import OPENING, TagFormat


class HermesFormat(TagFormat):
    @classmethod
    def fits(cls, template: str) -> bool:
        return OPENING in template and "<function=" not in template  # Qwen3-Coder's own kind of XML between the tags

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        return None
