"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import Request as Asked
from edgewise.base import StructuredOutputsParams
from edgewise.serve.http.blocks import read_talk, read_tools, use_block
from edgewise.serve.http.bodies import Events, fields, unless_gone
from edgewise.serve.http.calling import held
from edgewise.serve.http.errors import bad, understood
from edgewise.serve.http.errors import body as error_body
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.sampling import sampling, stops
from edgewise.serve.http.shelf import model_for
from edgewise.serve.http.streams import checked, merged
from edgewise.serve.http.structured import anthropic_format
from edgewise.serve.http.thinking import anthropic_thinking
from edgewise.serve.tools import Reader, Tools
from edgewise.text.tools import Part

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


async def messages(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    talk = read_talk(body)
    most = body.integer("max_tokens", None, 1, 1 << 31)
    if most is None:
        raise bad("max_tokens", "max_tokens is missing: say how many tokens the answer may have.", "missing")
    stream = body.boolean("stream")
    tools, wanted = await held(model, read_tools(body), await anthropic_format(body, model))
    thinking = anthropic_thinking(body, model, most)
    _not_served(body)
    params = _sampling(body, model, most, wanted)
    body.done()
    options = thinking.options(model.thinking)
    if tools is not None:
        params = replace(params, skip_special_tokens=False)  # a call may begin with a control token
        talk, options = tools.conversation(talk, options)
    asked = model.prepared(await model.chat_tokens(talk, param="messages", **options), params, "messages", thinking)
    reply = _Reply(model, asked, tools)
    if stream:
        return _AnthropicEvents(reply.stream(), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


async def count_tokens(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    talk = read_talk(body)
    asked = read_tools(body)
    thinking = anthropic_thinking(body, model, None)
    _not_served(body)
    await anthropic_format(body, model)
    body.done()
    options = thinking.options(model.thinking)
    if asked is not None and model.template is not None:
        talk, options = Tools(asked, model.template, model.tokenizer).conversation(talk, options)
    return JSONResponse({"input_tokens": len(await model.chat_tokens(talk, **options))})


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


def _not_served(body: Fields) -> None:
    for name in ("container", "context_management", "mcp_servers"):
        body.only(name)


class _AnthropicEvents(Events):
    def ping(self) -> str:
        return _event("ping", {})

    def failed(self, problem: Exception) -> str:
        value = error_body(self._path, understood(problem))
        return f"event: error\ndata: {json.dumps(value)}\n\n"


def _event(kind: str, value: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **value}, ensure_ascii=False, separators=(',', ':'))}\n\n"


class _Reply:
    def __init__(self, model: Hosted, asked: Asked, tools: Tools | None) -> None:
        self.model, self.asked, self.tools = model, asked, tools
        self.head: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model.name,
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            await stream.whole()
            result = checked(stream)
            (out,) = result.outputs
            content, reason = [{"type": "text", "text": out.text}], out.finish_reason
            if self.tools is not None:
                reader = self.tools.reader()
                reader.push(out.text)
                reader.flush()
                said, reason = reader.said, reader.reason(reason)
                content = [{"type": "text", "text": said.content}] if said.content or not said.calls else []
                content += [use_block(call) for call in said.calls]
            if out.reasoning:
                content = [{"type": "thinking", "thinking": out.reasoning, "signature": ""}, *content]
            return {
                **self.head,
                "content": content,
                **_reason(reason, out.stop_reason),
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
        reader = None if self.tools is None else self.tools.reader()
        blocks = _Blocks(reader)
        try:
            message = {**self.head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
            known = reader is None and "splitter" not in self.asked.extra  # else the first block may be no text
            yield _event("message_start", {"message": message}) + (blocks.text("") if known else "")
            async for _, chunk in merged([stream]):
                reason = chunk.finish_reason
                text = blocks.thought(chunk.reasoning) if chunk.reasoning else ""
                if reader is None:
                    text += blocks.text(chunk.text) if chunk.text or (reason and not blocks.texts) else ""
                else:
                    parts = reader.push(chunk.text) + (reader.flush() if reason else [])
                    text, reason = text + "".join(map(blocks.part, parts)), reader.reason(reason)
                if reason:
                    made = stream.collector.metrics().completion_tokens
                    delta = {"delta": _reason(reason, chunk.stop_reason), "usage": {**usage, "output_tokens": made}}
                    text += blocks.end() + _event("message_delta", delta) + _event("message_stop", {})
                if text:
                    yield text
        finally:
            stream.close()


class _Blocks:
    """Content blocks as events: each is opened, filled and closed before the next."""

    def __init__(self, reader: Reader | None) -> None:
        self._reader, self._index = reader, -1
        self._open = ""  # what the block is that is not closed
        self.texts = 0  # blocks that are texts

    def part(self, part: Part) -> str:
        if part.text:
            return self.text(part.text)
        if part.name:
            assert self._reader is not None
            call = self._reader.said.calls[part.call]
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            return self._begin(block)
        return self._delta({"type": "input_json_delta", "partial_json": part.arguments})

    def text(self, text: str) -> str:
        begun = ""
        if self._open != "text":
            begun, self.texts = self._begin({"type": "text", "text": ""}), self.texts + 1
        return begun + (self._delta({"type": "text_delta", "text": text}) if text else "")

    def thought(self, text: str) -> str:
        begun = "" if self._open == "thinking" else self._begin({"type": "thinking", "thinking": "", "signature": ""})
        return begun + self._delta({"type": "thinking_delta", "thinking": text})

    def end(self) -> str:
        if not self._open:
            return ""
        signed = self._delta({"type": "signature_delta", "signature": ""}) if self._open == "thinking" else ""
        self._open = ""
        return signed + _event("content_block_stop", {"index": self._index})

    def _begin(self, block: dict[str, Any]) -> str:
        before = self.end()
        self._index += 1
        self._open = block["type"]
        return before + _event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def _reason(finish: str | None, stop: int | str | None) -> dict[str, Any]:
    text = stop if isinstance(stop, str) else None
    return {"stop_reason": "stop_sequence" if text else REASONS.get(finish or "", "end_turn"), "stop_sequence": text}
