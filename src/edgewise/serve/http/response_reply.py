"""The answer of /v1/responses: the object, and its events in the order that OpenAI sends them.

created → in_progress → for each item: output_item.added, content_part.added, deltas, text.done, content_part.done,
output_item.done → completed, or incomplete, or failed. A function_call has no parts: its arguments come as deltas, and
whole. Every event is numbered.
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
from edgewise.serve.tools import Call, Tools

PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class Item:
    """One entry of `output` as it grows: a message, the reasoning before it, or a call, whose text is its arguments."""

    def __init__(self, kind: str, index: int, call: Call | None = None) -> None:
        self.kind, self.index, self.call = kind, index, call
        self.id = f"{PREFIXES[kind]}_{uuid.uuid4().hex}"
        self.text = ""
        self.logprobs: list[dict[str, Any]] = []

    def part(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}

    def body(self, status: str) -> dict[str, Any]:
        if self.call is not None:
            return {
                "id": self.id, "type": "function_call", "call_id": self.call.id, "name": self.call.name,
                "arguments": self.text, "status": status,
            }  # fmt: skip
        content = [] if status == "in_progress" else [self.part(self.text, self.logprobs)]
        if self.kind == "reasoning":
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status}
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}


class Reply:
    """echo: what the object repeats of the request. talk: what was said so far. remembered: None, or where it goes.
    tools: that may be called."""

    def __init__(
        self, model: Hosted, asked: Asked, echo: dict[str, Any], talk: Sequence[Message], remembered: Remembered | None,
        tools: Tools | None = None,
    ) -> None:  # fmt: skip
        self._reader = None if tools is None else tools.reader()
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
            logprobs = _logprobs(out.token_ids, out.logprobs)
            self._said(out.text, logprobs, last=True)
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
                logprobs = _logprobs(chunk.token_ids, chunk.logprobs)
                text += self._said(chunk.text, logprobs, last=chunk.finish_reason is not None)
                if chunk.finish_reason:
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

    def _item(self, kind: str, call: Call | None = None) -> Item:
        self.items.append(Item(kind, len(self.items), call))
        return self.items[-1]

    def _said(self, text: str, logprobs: list[dict[str, Any]], *, last: bool) -> str:
        """More of the answer, as events: its text, and calls where tools were given."""
        events = ""
        if self._reader is None:
            events = self._grow("message", text, logprobs) if text else ""
        else:
            for part in self._reader.push(text) + (self._reader.flush() if last else []):
                if part.text:
                    events += self._grow("message", part.text, logprobs)
                    logprobs = []
                elif part.name:
                    events += self._open("function_call", self._reader.said.calls[part.call])
                elif part.arguments:
                    events += self._grow("function_call", part.arguments, [])
        if last and all(item.kind == "reasoning" for item in self.items):  # an empty answer is one, too
            events += self._open("message")
        return events

    def _grow(self, kind: str, delta: str, logprobs: list[dict[str, Any]]) -> str:
        text = ""
        if not self.items or self.items[-1].kind != kind:
            text += self._open(kind)
        item = self.items[-1]
        item.text += delta
        item.logprobs += logprobs
        more = {"logprobs": logprobs} if kind == "message" else {}
        return text + self._event(f"{_texts(item)}.delta", **_at(item), delta=delta, **more)

    def _open(self, kind: str, call: Call | None = None) -> str:
        text = self._close("completed") if self.items else ""
        item = self._item(kind, call)
        text += self._event("response.output_item.added", output_index=item.index, item=item.body("in_progress"))
        if call is not None:
            return text
        return text + self._event("response.content_part.added", **_at(item), part=item.part(""))

    def _close(self, status: str) -> str:
        item = self.items[-1]
        if item.call is not None:
            text = self._event(f"{_texts(item)}.done", **_at(item), name=item.call.name, arguments=item.text)
        else:
            more = {"logprobs": item.logprobs} if item.kind == "message" else {}
            text = self._event(f"{_texts(item)}.done", **_at(item), text=item.text, **more)
            text += self._event("response.content_part.done", **_at(item), part=item.part(item.text, item.logprobs))
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
            self.remembered.keep(body, [*self.talk, self._message()])
        return body

    def _message(self) -> Message:
        """The answer as templates know it."""
        said: dict[str, Any] = {"role": "assistant"}
        for name, kind in (("content", "message"), ("reasoning_content", "reasoning")):
            said[name] = "".join(item.text for item in self.items if item.kind == kind)
        if not said["reasoning_content"]:
            del said["reasoning_content"]
        calls = [{**item.call.body(), "function": {"name": item.call.name, "arguments": item.text}}
                 for item in self.items if item.call is not None]  # fmt: skip
        return {**said, **({"tool_calls": calls} if calls else {})}

    def _body(self, status: str) -> dict[str, Any]:
        params = self.asked.params
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "background": False,
            "error": None, "incomplete_details": None, "model": self.model.name, "output": [], "metadata": {},
            "temperature": params.temperature, "top_p": params.top_p, "top_logprobs": params.logprobs or 0,
            "truncation": "disabled", "service_tier": "default", "usage": None, **self.echo,
        }  # fmt: skip


def _texts(item: Item) -> str:
    kinds = {"reasoning": "reasoning_text", "message": "output_text", "function_call": "function_call_arguments"}
    return f"response.{kinds[item.kind]}"


def _at(item: Item) -> dict[str, Any]:
    where = {"item_id": item.id, "output_index": item.index}
    return where if item.call is not None else {**where, "content_index": 0}


def _logprobs(tokens: Sequence[int], entries: Sequence[dict[int, Logprob]] | None) -> list[dict[str, Any]]:
    return [token_entry(token, found) for token, found in zip(tokens, entries or (), strict=False)]
