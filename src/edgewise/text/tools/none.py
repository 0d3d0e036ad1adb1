"""For templates that know no tools: they are described in the system message, and calls go between tags.

Paper:  none
Exact.
Needs:  a chat template
Cost:   the tokens of the description
Status: kept
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.text.tools.tags import CLOSING, OPENING, TagFormat

ASK = (
    "You can call these tools, one JSON description a line:\n{tools}\n"
    "To call one, write {opening}, a line break, an object with its name and arguments, a line break, {closing}. "
    "Example:\n"
    '{opening}\n{{"name": "tool", "arguments": {{"key": "value"}}}}\n{closing}\n'
    "The result follows as the next message. If no tool helps, answer without one."
)


class NoFormat(TagFormat):
    @classmethod
    def fits(cls, template: str) -> bool:
        return "tools" not in template

    def messages(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]] | None:
        """The tools go into the system message, calls and results into plain ones."""
        lines = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
        said = ASK.format(tools=lines, opening=OPENING, closing=CLOSING)
        found = [_plain(message) for message in messages]
        if found and found[0]["role"] == "system":
            found[0]["content"] = f"{found[0]['content']}\n\n{said}"
        else:
            found.insert(0, {"role": "system", "content": said})
        return found


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"}
    calls = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        body = json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
        calls.append(f"{OPENING}\n{body}\n{CLOSING}")
    if calls:
        found["content"] = "\n".join(filter(None, [message.get("content"), *calls]))
    return found
