"""Anthropic's content blocks and tools, to and from the messages and tools that templates know."""

import json
from typing import Any

from edgewise.serve.http.calling import MAX_TOOLS, chosen, function_of, unique
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.messages import content_text
from edgewise.serve.http.settings import MAX_MESSAGES
from edgewise.serve.tools import Asked, Call

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_talk(body: Fields) -> list[dict[str, Any]]:
    system = body.anything("system")
    found = [] if system is None else [{"role": "system", "content": content_text(system, "system")}]
    listed = body.array("messages", MAX_MESSAGES)
    if not listed:
        raise bad("messages", "Give messages: a list of objects with role and content.", "missing")
    for at, entry in enumerate(listed):
        message = Fields(entry, f"messages[{at}].")
        role = message.text("role", choices=("user", "assistant"))
        content = message.anything("content")
        message.done()
        if role is None or content is None:
            raise bad(f"messages[{at}]", f"messages[{at}] needs a role and a content.", "missing")
        found += _messages(role, content, f"messages[{at}].content")
    return found


def _messages(role: str, content: Any, where: str) -> list[dict[str, Any]]:
    """One message of theirs is one of ours, after the results of tools that came in it."""
    if not isinstance(content, list):
        return [{"role": role, "content": content_text(content, where)}]
    texts: list[Any] = []
    results: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "tool_result" and role == "user":
            results.append(_result(part, f"{where}[{at}]"))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_use(part, f"{where}[{at}]"))
        elif kind == "thinking" and role == "assistant":
            thoughts.append(_thought(part, f"{where}[{at}]"))
        else:
            texts.append(content_text([part], f"{where}[{at}]"))
    if results and not texts:
        return results
    message: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    return [*results, message]


def _thought(part: dict[str, Any], where: str) -> str:
    """What the model thought then: it comes back as it was sent."""
    inner = Fields(part, f"{where}.")
    inner.text("type")
    inner.no_effect("signature")
    text: str = inner.text("thinking", "")
    inner.done()
    return text


def _result(part: dict[str, Any], where: str) -> dict[str, Any]:
    inner = Fields(part, f"{where}.")
    inner.text("type")
    identity = inner.text("tool_use_id")
    content = inner.anything("content", "")
    failed = inner.boolean("is_error")
    inner.no_effect("cache_control")
    inner.done()
    if identity is None:
        raise bad(f"{where}.tool_use_id", f"{where} has no tool_use_id.", "missing")
    text = content_text(content, f"{where}.content")
    return {"role": "tool", "tool_call_id": identity, "content": f"Error: {text}" if failed else text}


def _use(part: dict[str, Any], where: str) -> dict[str, Any]:
    inner = Fields(part, f"{where}.")
    inner.text("type")
    identity, name, given = inner.text("id"), inner.text("name"), inner.mapping("input")
    inner.no_effect("cache_control", "caller")
    inner.done()
    if identity is None or name is None:
        raise bad(where, f"{where} needs an id and a name.", "missing")
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": given or {}}}


def read_tools(body: Fields) -> Asked | None:
    """None where no tool may be called."""
    tools = tuple(_tool(entry, f"tools[{at}]") for at, entry in enumerate(body.array("tools", MAX_TOOLS) or []))
    unique(tools, "tools")
    given = body.mapping("tool_choice")
    if given is None:
        return chosen("tool_choice", tools, "auto", parallel=True)
    inner = Fields(given, "tool_choice.")
    kind = inner.text("type", choices=(*CHOICES, "tool"))
    name = inner.text("name")
    alone = inner.boolean("disable_parallel_tool_use")
    inner.done()
    if kind is None or (kind == "tool") != (name is not None):
        raise bad("tool_choice", "tool_choice needs a type, and a name where the type is tool.", "missing")
    choice = {"type": "function", "function": {"name": name}} if kind == "tool" else CHOICES[kind]
    return chosen("tool_choice", tools, choice, not alone)


def _tool(entry: Any, where: str) -> dict[str, Any]:
    tool = Fields(entry, f"{where}.")
    kind = tool.text("type", "custom")
    if kind != "custom":
        raise bad(f"{where}.type", f"{where}.type is '{kind}'; the server has no tools of its own.", "unsupported")
    made = function_of(where, tool.text("name"), tool.text("description"), tool.mapping("input_schema"))
    if tool.boolean("strict"):
        made["strict"] = True
    tool.no_effect("cache_control")
    tool.done()
    return {"type": "function", "function": made}


def use_block(call: Call) -> dict[str, Any]:
    """A finished call. Arguments that were cut (max_tokens) are no JSON: they come as a text under their own name."""
    try:
        given = json.loads(call.arguments or "{}")
    except ValueError:
        given = {"partial_json": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}
