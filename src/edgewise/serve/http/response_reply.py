"""The answer of /v1/responses: the object, and its events in the order that OpenAI sends them.

created → in_progress → for each item: output_item.added, content_part.added, deltas, text.done, content_part.done,
output_item.done → completed, or incomplete, or failed. Every event is numbered.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from edgewise.base import Request as Asked
from edgewise.serve.chat import token_entry
from edgewise.serve.http.errors import ApiError
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.remembered import Message, Remembered
from edgewise.serve.http.streams import checked, merged
from edgewise.serve.outputs import Logprob, Metrics


class Item:
    """One entry of `output` as it grows: a message or the reasoning before it."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind, self.index = kind, index
        self.id = f"{'msg' if kind == 'message' else 'rs'}_{uuid.uuid4().hex}"
        self.text = ""
        self.logprobs: list[dict[str, Any]] = []

    def part(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}

    def body(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part(self.text, self.logprobs)]
        if self.kind == "reasoning":
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status}
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}


class Reply:
    """echo: what the object repeats of the request. talk: what was said so far. remembered: None, or where it goes."""

    def __init__(
        self, model: Hosted, asked: Asked, echo: dict[str, Any], talk: Sequence[Message], remembered: Remembered | None
    ) -> None:
        self.model, self.asked, self.echo, self.talk, self.remembered = model, asked, echo, talk, remembered
        self.id, self.created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self.items: list[Item] = []
        self.sequence = 0

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            await stream.whole()
            result = checked(stream)
            (out,) = result.outputs
            if out.reasoning:
                self._item("reasoning").text = out.reasoning
            message = self._item("message")
            message.text, message.logprobs = out.text, _logprobs(out.token_ids, out.logprobs)
            return self._finished(out.finish_reason, result.metrics)
        finally:
            stream.close()

    async def stream(self) -> AsyncIterator[str]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            started = self._body("in_progress")
            yield self._event("response.created", response=started)
            yield self._event("response.in_progress", response=started)
            async for _, chunk in merged([stream]):
                text = ""
                if chunk.reasoning:
                    text += self._grow("reasoning", chunk.reasoning, [])
                if chunk.text:
                    text += self._grow("message", chunk.text, _logprobs(chunk.token_ids, chunk.logprobs))
                if chunk.finish_reason:
                    if not any(item.kind == "message" for item in self.items):  # an empty answer is one, too
                        text += self._open("message")
                    cut = chunk.finish_reason == "length"
                    text += self._close("incomplete" if cut else "completed")
                    body = self._finished(chunk.finish_reason, stream.collector.metrics())
                    text += self._event(f"response.{body['status']}", response=body)
                if text:
                    yield text
        except ApiError as problem:
            error = {"code": "server_error", "message": problem.message}
            yield self._event("response.failed", response={**self._body("failed"), "error": error})
        finally:
            stream.close()

    # ── items and events ────────────────────────────────────────────────────────────────

    def _item(self, kind: str) -> Item:
        self.items.append(Item(kind, len(self.items)))
        return self.items[-1]

    def _grow(self, kind: str, delta: str, logprobs: list[dict[str, Any]]) -> str:
        text = ""
        if not self.items or self.items[-1].kind != kind:
            text += self._open(kind)
        item = self.items[-1]
        item.text += delta
        item.logprobs += logprobs
        more = {"logprobs": logprobs} if kind == "message" else {}
        return text + self._event(f"{_texts(item)}.delta", **_at(item, 0), delta=delta, **more)

    def _open(self, kind: str) -> str:
        text = self._close("completed") if self.items else ""
        item = self._item(kind)
        added = self._event("response.output_item.added", output_index=item.index, item=item.body("in_progress"))
        return text + added + self._event("response.content_part.added", **_at(item, 0), part=item.part(""))

    def _close(self, status: str) -> str:
        item = self.items[-1]
        more = {"logprobs": item.logprobs} if item.kind == "message" else {}
        text = self._event(f"{_texts(item)}.done", **_at(item, 0), text=item.text, **more)
        text += self._event("response.content_part.done", **_at(item, 0), part=item.part(item.text, item.logprobs))
        return text + self._event("response.output_item.done", output_index=item.index, item=item.body(status))

    def _event(self, kind: str, **value: Any) -> str:
        whole = {"type": kind, "sequence_number": self.sequence, **value}
        self.sequence += 1
        return f"event: {kind}\ndata: {json.dumps(whole, ensure_ascii=False, separators=(',', ':'))}\n\n"

    def _finished(self, reason: str | None, metrics: Metrics) -> dict[str, Any]:
        cut = reason == "length"
        body = self._body("incomplete" if cut else "completed")
        body["output"] = [
            item.body("incomplete" if cut and item is self.items[-1] else "completed") for item in self.items
        ]
        body["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        body["usage"] = {
            "input_tokens": metrics.prompt_tokens,
            "input_tokens_details": {"cached_tokens": metrics.reused_tokens, "cache_write_tokens": 0},
            "output_tokens": metrics.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": metrics.reasoning_tokens},
            "total_tokens": metrics.prompt_tokens + metrics.completion_tokens,
        }
        if not cut:
            body["completed_at"] = int(time.time())
        if self.remembered is not None:
            said = {"role": "assistant", "content": "".join(i.text for i in self.items if i.kind == "message")}
            thought = "".join(item.text for item in self.items if item.kind == "reasoning")
            self.remembered.keep(body, [*self.talk, {**said, **({"reasoning_content": thought} if thought else {})}])
        return body

    def _body(self, status: str) -> dict[str, Any]:
        params = self.asked.params
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "background": False,
            "error": None, "incomplete_details": None, "model": self.model.name, "output": [], "metadata": {},
            "temperature": params.temperature, "top_p": params.top_p, "top_logprobs": params.logprobs or 0,
            "tool_choice": "auto", "tools": [], "truncation": "disabled",
            "service_tier": "default", "usage": None, **self.echo,
        }  # fmt: skip


def _texts(item: Item) -> str:
    return "response.reasoning_text" if item.kind == "reasoning" else "response.output_text"


def _at(item: Item, content: int) -> dict[str, Any]:
    return {"item_id": item.id, "output_index": item.index, "content_index": content}


def _logprobs(tokens: Sequence[int], entries: Sequence[dict[int, Logprob]] | None) -> list[dict[str, Any]]:
    return [token_entry(token, found) for token, found in zip(tokens, entries or (), strict=False)]
