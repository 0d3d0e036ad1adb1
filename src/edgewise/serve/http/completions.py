"""OpenAI's /v1/completions: text or token ids go on."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import Request as Asked
from edgewise.serve.http.bodies import Events, data, fields, unless_gone
from edgewise.serve.http.engine_thread import Stream
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.prompts import read_prompts
from edgewise.serve.http.sampling import max_tokens, sampling, streaming
from edgewise.serve.http.settings import MAX_LOGPROBS
from edgewise.serve.http.shelf import model_for
from edgewise.serve.http.streams import Usage, checked, merged
from edgewise.serve.http.structured import structured
from edgewise.serve.outputs import Logprob

DEFAULT_TOKENS = 16  # OpenAI's


async def completions(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    prompts = await read_prompts(body, model, "prompt")
    stream, usage = streaming(body)
    params = sampling(
        body, model.defaults(),
        max_tokens=max_tokens(body, "max_tokens", "max_completion_tokens") or DEFAULT_TOKENS,
        logprobs=body.integer("logprobs", None, 0, MAX_LOGPROBS),
        structured_outputs=await structured(body, model),
    )  # fmt: skip
    body.only("echo", False, why="Send what you have; the answer holds only what is new.")
    body.only("suffix", "")
    body.only("store", False)
    body.only("best_of", 1, params.n)
    body.done()
    asked = [model.prepared(tokens, params, "prompt") for tokens in prompts]
    reply = _Reply(model, asked)
    if stream:
        return Events(reply.stream(usage), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


class _Reply:
    def __init__(self, model: Hosted, asked: Sequence[Asked]) -> None:
        self.model, self.asked = model, asked
        self.head: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": model.name,
        }  # fmt: skip
        self.streams: list[Stream] = []
        self.offsets: dict[int, int] = {}  # choice → characters of it so far

    def _start(self) -> None:
        self.streams = [self.model.start(one, goes_on=True) for one in self.asked]

    def _close(self) -> None:
        for stream in self.streams:
            stream.close()

    async def whole(self) -> dict[str, Any]:
        self._start()
        try:
            choices, usage = [], Usage()
            for at, stream in enumerate(self.streams):
                await stream.whole()
                result = checked(stream)
                usage.add(result.metrics)
                for out in result.outputs:
                    index = at * len(result.outputs) + out.index
                    logprobs = self._logprobs(index, out.token_ids, out.logprobs)
                    choices.append(_choice(index, out.text, out.finish_reason, logprobs))
            return {**self.head, "choices": choices, "usage": usage.body()}
        finally:
            self._close()

    async def stream(self, with_usage: bool) -> AsyncIterator[str]:
        self._start()
        usage = Usage()
        try:
            async for at, chunk in merged(self.streams):
                index = at * self.asked[at].params.n + chunk.index
                logprobs = self._logprobs(index, chunk.token_ids, chunk.logprobs)
                if chunk.text or chunk.finish_reason or logprobs:
                    choice = _choice(index, chunk.text, chunk.finish_reason, logprobs)
                    yield data({**self.head, "choices": [choice]})
                if chunk.metrics is not None:
                    usage.add(chunk.metrics)
            if with_usage:
                yield data({**self.head, "choices": [], "usage": usage.body()})
            yield "data: [DONE]\n\n"
        finally:
            self._close()

    def _logprobs(
        self, index: int, tokens: Sequence[int], entries: Sequence[dict[int, Logprob]] | None
    ) -> dict[str, Any] | None:
        """OpenAI's old form: lists side by side."""
        if entries is None or not tokens:
            return None
        texts = [found[token].decoded_token for token, found in zip(tokens, entries, strict=True)]
        offsets = []
        for text in texts:
            offsets.append(self.offsets.get(index, 0))
            self.offsets[index] = offsets[-1] + len(text)
        return {
            "tokens": texts,
            "token_logprobs": [found[token].logprob for token, found in zip(tokens, entries, strict=True)],
            "top_logprobs": [
                {one.decoded_token: one.logprob for one in found.values() if one.rank is not None} for found in entries
            ],
            "text_offset": offsets,
        }


def _choice(index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
