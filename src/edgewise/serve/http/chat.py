"""OpenAI's /v1/chat/completions."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import Request as Asked
from edgewise.serve.chat import token_entry
from edgewise.serve.http.bodies import Events, data, fields, unless_gone
from edgewise.serve.http.calling import held, read_tools
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.messages import read_messages
from edgewise.serve.http.sampling import chat_logprobs, max_tokens, sampling, streaming
from edgewise.serve.http.shelf import model_for
from edgewise.serve.http.streams import Usage, checked, merged
from edgewise.serve.http.structured import structured
from edgewise.serve.http.thinking import chat_thinking
from edgewise.serve.outputs import Logprob
from edgewise.serve.tools import Reader, Tools, deltas_of, message_of


async def chat(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    messages = read_messages(body)
    stream, usage = streaming(body)
    tools, wanted = await held(model, read_tools(body), await structured(body, model))
    more = {} if tools is None else {"skip_special_tokens": False}  # a call may begin with a control token
    params = sampling(
        body, model.defaults(), logprobs=chat_logprobs(body),
        max_tokens=max_tokens(body, "max_completion_tokens", "max_tokens"),
        structured_outputs=wanted, **more,
    )  # fmt: skip
    for name in ("functions", "audio", "prediction", "web_search_options", "verbosity"):
        body.only(name)
    body.only("store", False)
    body.only("function_call", "none")
    body.only("modalities", ["text"])
    thinking = chat_thinking(body, model)
    options = {**thinking.options(model.thinking), **(body.mapping("chat_template_kwargs") or {})}
    body.done()
    messages = thinking.told(messages, model.thinking)
    if tools is not None:
        messages, options = tools.conversation(messages, options)
    tokens = await model.chat_tokens(messages, param="messages", **options)
    asked = model.prepared(tokens, params, "messages", thinking)
    reply = _Reply(model, asked, tools)
    if stream:
        return Events(reply.stream(usage), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


class _Reply:
    def __init__(self, model: Hosted, asked: Asked, tools: Tools | None = None) -> None:
        self.model, self.asked, self.tools = model, asked, tools
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name}

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            await stream.whole()
            result, usage = checked(stream), Usage()
            usage.add(result.metrics)
            choices = []
            for out in result.outputs:
                message, reason = message_of(out, self.tools)
                if out.reasoning:
                    message["reasoning_content"] = out.reasoning
                logprobs = _logprobs(out.token_ids, out.logprobs)
                choices.append({"index": out.index, "message": message, "logprobs": logprobs, "finish_reason": reason})
            return {**self._head("chat.completion"), "choices": choices, "usage": usage.body()}
        finally:
            stream.close()

    async def stream(self, with_usage: bool) -> AsyncIterator[str]:
        head, usage, begun = self._head("chat.completion.chunk"), Usage(), set[int]()
        readers: dict[int, Reader] = {}
        stream = self.model.start(self.asked, goes_on=False)

        def piece(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> str:
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            return data({**head, "choices": [choice]})

        try:
            async for _, chunk in merged([stream]):
                text = ""
                if chunk.index not in begun:
                    begun.add(chunk.index)
                    text += piece(chunk.index, {"role": "assistant", "content": ""})
                logprobs, reason = _logprobs(chunk.token_ids, chunk.logprobs), chunk.finish_reason
                deltas = [{"content": chunk.text}] if chunk.text else []
                if self.tools is not None:
                    reader = readers.setdefault(chunk.index, self.tools.reader())
                    parts = reader.push(chunk.text) + (reader.flush() if reason else [])
                    deltas, reason = deltas_of(parts, reader), reader.reason(reason)
                if chunk.reasoning:
                    deltas = [{"reasoning_content": chunk.reasoning}, *deltas]
                if logprobs and not deltas:
                    deltas = [{"content": ""}]
                for delta in deltas:
                    text += piece(chunk.index, delta, logprobs=logprobs)
                    logprobs = None
                if reason:
                    text += piece(chunk.index, {}, reason)
                if chunk.metrics is not None:
                    usage.add(chunk.metrics)
                if text:
                    yield text
            if with_usage:
                yield data({**head, "choices": [], "usage": usage.body()})
            yield "data: [DONE]\n\n"
        finally:
            stream.close()


def _logprobs(tokens: list[int], entries: list[dict[int, Logprob]] | None) -> dict[str, Any] | None:
    if not entries:
        return None
    pairs = zip(tokens, entries, strict=True)
    return {"content": [token_entry(token, found) for token, found in pairs], "refusal": None}
