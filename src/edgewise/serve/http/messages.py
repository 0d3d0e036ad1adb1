"""Messages of a chat as templates know them: roles and texts. What a model cannot read is refused by its place."""

from typing import Any

from edgewise.serve.http.calling import read_calls
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.settings import MAX_MESSAGES

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXTS = ("text", "input_text", "output_text")


def read_messages(body: Fields) -> list[dict[str, Any]]:
    listed = body.array("messages", MAX_MESSAGES)
    if not listed:
        raise bad("messages", "Give messages: a list of objects with role and content.", "missing")
    return [_message(entry, f"messages[{at}]") for at, entry in enumerate(listed)]


def _message(entry: Any, where: str) -> dict[str, Any]:
    message = Fields(entry, f"{where}.")
    role = message.text("role", choices=ROLES)
    if role is None:
        raise bad(f"{where}.role", f"{where} has no role: give one of {', '.join(ROLES)}.", "missing")
    found: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content = message.anything("content")
    calls = read_calls(message, where)
    if content is None and not calls:
        raise bad(f"{where}.content", f"{where} has no content.", "missing")
    found["content"] = "" if content is None else content_text(content, f"{where}.content")
    if calls:
        found["tool_calls"] = calls
    for name in ("name", "tool_call_id", "tool_name", "reasoning_content", "reasoning", "thinking"):
        value = message.text(name)
        if value is not None:
            found[name] = value
    message.only("refusal")
    message.only("annotations", [])
    message.only("images", [])
    message.only("audio")
    message.only("function_call")
    message.done()
    return found


def content_text(content: Any, where: str) -> str:
    """A text, or parts that are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad(where, f"{where} must be a text or a list of parts.")
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in TEXTS:
            message = f"{where}[{at}] is of type {kind!r}; this server reads text only."
            raise bad(f"{where}[{at}]", message, "unsupported")
        inner = Fields(part, f"{where}[{at}].")
        inner.text("type")
        text = inner.text("text")
        inner.no_effect("cache_control", "annotations", "logprobs")
        inner.done()
        if text is None:
            raise bad(f"{where}[{at}].text", f"{where}[{at}] has no text.", "missing")
        texts.append(text)
    return "\n".join(texts)
