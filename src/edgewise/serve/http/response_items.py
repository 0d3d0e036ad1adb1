"""`input` of OpenAI's responses: a text, or items of several kinds, as the messages that templates know."""

from collections.abc import Callable
from typing import Any

from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.messages import content_text
from edgewise.serve.http.settings import MAX_MESSAGES

ROLES = ("user", "assistant", "system", "developer")
Message = dict[str, Any]


def read_input(body: Fields) -> list[Message]:
    value = body.anything("input")
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    listed = body.array("input", MAX_MESSAGES)
    if not listed:
        raise bad("input", "Give input: a text, or a list of items.", "missing")
    found: list[Message] = []
    for at, entry in enumerate(listed):
        item = Fields(entry, f"input[{at}].")
        kind = item.text("type", "message")
        if kind not in READERS:
            raise bad(item.name("type"), f"{item.name('type')} is '{kind[:40]}'; this server reads "
                      f"{' and '.join(READERS)}.", "unsupported")  # fmt: skip
        item.no_effect("id", "status")
        READERS[kind](item, found)
        item.done()
    return found


def _message(item: Fields, found: list[Message]) -> None:
    role, content = item.text("role", choices=ROLES), item.anything("content")
    item.only("phase")
    if role is None or content is None:
        raise bad(item.name("role" if role is None else "content"),
                  f"{item.name('type')[:-5]} needs a role and a content.", "missing")  # fmt: skip
    text = content_text(content, item.name("content"))
    message = {"role": "system" if role == "developer" else role, "content": text}
    if role == "assistant":
        message = {**_thought_before(found), **message}
    found.append(message)


def _thought_before(found: list[Message]) -> Message:
    """What the assistant thought before it said this, taken off the list."""
    return found.pop() if found and found[-1].keys() == {"role", "reasoning_content"} else {}


def _reasoning(item: Fields, found: list[Message]) -> None:
    """Comes back as it was sent; the message that follows is what it led to."""
    item.no_effect("summary")
    item.only("encrypted_content")
    texts = []
    for at, part in enumerate(item.array("content", 100) or ()):
        inner = Fields(part, f"{item.name('content')}[{at}].")
        inner.text("type", choices=("reasoning_text",))
        texts.append(inner.text("text", ""))
        inner.done()
    if texts:
        found.append({"role": "assistant", "reasoning_content": "\n".join(texts)})


def _call(item: Fields, found: list[Message]) -> None:
    """Calls that follow a message, or each other, are one message."""
    name, identity, arguments = item.text("name"), item.text("call_id"), item.text("arguments", "")
    item.only("namespace")
    for field, value in (("name", name), ("call_id", identity)):
        if value is None:
            raise bad(item.name(field), f"{item.name('type')[:-5]} is a function_call without {field}.", "missing")
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    if found and found[-1]["role"] == "assistant" and "content" in found[-1]:
        found[-1].setdefault("tool_calls", []).append(call)
    else:
        found.append({**_thought_before(found), "role": "assistant", "content": "", "tool_calls": [call]})


def _output(item: Fields, found: list[Message]) -> None:
    identity, output = item.text("call_id"), item.anything("output")
    for field, value in (("call_id", identity), ("output", output)):
        if value is None:
            raise bad(item.name(field), f"{item.name('type')[:-5]} is a function_call_output without {field}.",
                      "missing")  # fmt: skip
    found.append({"role": "tool", "tool_call_id": identity, "content": content_text(output, item.name("output"))})


READERS: dict[str, Callable[[Fields, list[Message]], None]] = {
    "message": _message, "reasoning": _reasoning, "function_call": _call, "function_call_output": _output,
}  # fmt: skip
