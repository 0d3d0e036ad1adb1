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
    if role == "assistant" and found and found[-1].keys() == {"role", "reasoning_content"}:  # what it thought before
        message = {**found.pop(), **message}
    found.append(message)


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


READERS: dict[str, Callable[[Fields, list[Message]], None]] = {"message": _message, "reasoning": _reasoning}
