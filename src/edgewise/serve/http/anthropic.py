"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import Request as Asked
from edgewise.base import StructuredOutputsParams
from edgewise.serve.http.bodies import Events, fields, unless_gone
from edgewise.serve.http.errors import bad, understood
from edgewise.serve.http.errors import body as error_body
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.messages import content_text
from edgewise.serve.http.sampling import sampling, stops
from edgewise.serve.http.settings import MAX_MESSAGES
from edgewise.serve.http.shelf import model_for
from edgewise.serve.http.streams import checked, merged
from edgewise.serve.http.structured import anthropic_format

REASONS = {"stop": "end_turn", "length": "max_tokens"}


async def messages(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    talk = _talk(body)
    most = body.integer("max_tokens", None, 1, 1 << 31)
    if most is None:
        raise bad("max_tokens", "max_tokens is missing: say how many tokens the answer may have.", "missing")
    stream = body.boolean("stream")
    _no_tools(body)
    params = _sampling(body, model, most, await anthropic_format(body, model))
    body.done()
    asked = model.prepared(await model.chat_tokens(talk, param="messages"), params, "messages")
    reply = _Reply(model, asked)
    if stream:
        return _AnthropicEvents(reply.stream(), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


async def count_tokens(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    talk = _talk(body)
    _no_tools(body)
    body.done()
    return JSONResponse({"input_tokens": len(await model.chat_tokens(talk))})


def _sampling(body: Fields, model: Hosted, most: int, wanted: StructuredOutputsParams | None) -> Any:
    inner = Fields(
        {key: body.anything(key) for key in ("temperature", "top_p", "top_k", "service_tier", "metadata")
         if key in body.given}
    )  # fmt: skip
    body.no_effect("metadata")
    if inner.given.get("service_tier") == "standard_only":
        del inner.given["service_tier"]
    return sampling(
        inner, model.defaults(), max_tokens=most, stop=stops(body, "stop_sequences"),
        structured_outputs=wanted,
    )


def _no_tools(body: Fields) -> None:
    body.only("tools", [])
    body.only("tool_choice", {"type": "none"})
    thinking = body.anything("thinking")
    if thinking is not None and thinking != {"type": "disabled"}:
        raise bad("thinking", "thinking is not supported here.", "unsupported")
    for name in ("container", "context_management", "mcp_servers"):
        body.only(name)


def _talk(body: Fields) -> list[dict[str, Any]]:
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
        found.append({"role": role, "content": content_text(content, f"messages[{at}].content")})
    return found


class _AnthropicEvents(Events):
    def ping(self) -> str:
        return _event("ping", {})

    def failed(self, problem: Exception) -> str:
        value = error_body(self._path, understood(problem))
        return f"event: error\ndata: {json.dumps(value)}\n\n"


def _event(kind: str, value: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **value}, ensure_ascii=False, separators=(',', ':'))}\n\n"


class _Reply:
    def __init__(self, model: Hosted, asked: Asked) -> None:
        self.model, self.asked = model, asked
        self.head: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model.name,
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            await stream.whole()
            result = checked(stream)
            (out,) = result.outputs
            return {
                **self.head,
                "content": [{"type": "text", "text": out.text}],
                **_reason(out.finish_reason, out.stop_reason),
                "usage": {
                    "input_tokens": result.metrics.prompt_tokens,
                    "output_tokens": result.metrics.completion_tokens,
                },
            }
        finally:
            stream.close()

    async def stream(self) -> AsyncIterator[str]:
        stream = self.model.start(self.asked, goes_on=False)
        usage = {"input_tokens": len(self.asked.tokens), "output_tokens": 0}
        try:
            message = {**self.head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
            block = {"index": 0, "content_block": {"type": "text", "text": ""}}
            yield _event("message_start", {"message": message}) + _event("content_block_start", block)
            async for _, chunk in merged([stream]):
                if chunk.text:
                    delta: dict[str, Any] = {"type": "text_delta", "text": chunk.text}
                    yield _event("content_block_delta", {"index": 0, "delta": delta})
                if chunk.finish_reason:
                    made = stream.collector.metrics().completion_tokens
                    delta = {"delta": _reason(chunk.finish_reason, chunk.stop_reason),
                             "usage": {**usage, "output_tokens": made}}  # fmt: skip
                    yield _event("content_block_stop", {"index": 0}) + _event("message_delta", delta)
                    yield _event("message_stop", {})
        finally:
            stream.close()


def _reason(finish: str | None, stop: int | str | None) -> dict[str, Any]:
    text = stop if isinstance(stop, str) else None
    return {"stop_reason": "stop_sequence" if text else REASONS.get(finish or "", "end_turn"), "stop_sequence": text}
