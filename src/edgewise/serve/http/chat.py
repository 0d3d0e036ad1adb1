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
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.messages import read_messages
from edgewise.serve.http.sampling import chat_logprobs, max_tokens, sampling, streaming
from edgewise.serve.http.streams import Usage, checked, merged
from edgewise.serve.http.structured import structured
from edgewise.serve.outputs import Logprob


async def chat(request: Request) -> Response:
    body = await fields(request)
    model: Hosted = request.app.state.shelf.find(body.text("model"))
    messages = read_messages(body)
    stream, usage = streaming(body)
    params = sampling(
        body, model.defaults(), logprobs=chat_logprobs(body),
        max_tokens=max_tokens(body, "max_completion_tokens", "max_tokens"),
        structured_outputs=await structured(body, model),
    )  # fmt: skip
    for name in ("tools", "functions", "audio", "prediction", "reasoning_effort", "web_search_options", "verbosity"):
        body.only(name)
    body.only("store", False)
    body.only("tool_choice", "none")
    body.only("function_call", "none")
    body.only("parallel_tool_calls")
    body.only("modalities", ["text"])
    options = body.mapping("chat_template_kwargs") or {}
    body.done()
    asked = model.prepared(await model.chat_tokens(messages, param="messages", **options), params, "messages")
    reply = _Reply(model, asked)
    if stream:
        return Events(reply.stream(usage), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


class _Reply:
    def __init__(self, model: Hosted, asked: Asked) -> None:
        self.model, self.asked = model, asked
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.name}

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=False)
        try:
            await stream.whole()
            result, usage = checked(stream), Usage()
            usage.add(result.metrics)
            choices = [
                {
                    "index": out.index,
                    "message": {"role": "assistant", "content": out.text, "refusal": None},
                    "logprobs": _logprobs(out.token_ids, out.logprobs),
                    "finish_reason": out.finish_reason,
                }
                for out in result.outputs
            ]
            return {**self._head("chat.completion"), "choices": choices, "usage": usage.body()}
        finally:
            stream.close()

    async def stream(self, with_usage: bool) -> AsyncIterator[str]:
        head, usage, begun = self._head("chat.completion.chunk"), Usage(), set[int]()
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
                logprobs = _logprobs(chunk.token_ids, chunk.logprobs)
                if chunk.text or logprobs:
                    text += piece(chunk.index, {"content": chunk.text}, logprobs=logprobs)
                if chunk.finish_reason:
                    text += piece(chunk.index, {}, chunk.finish_reason)
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
