"""Several engine streams as one, what they cost, and their failures as errors."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from edgewise.serve.http.engine_thread import Stream
from edgewise.serve.http.errors import ApiError
from edgewise.serve.outputs import Metrics, RequestOutput, StreamChunk


class Usage:
    """Tokens of one request: drawn ones count, the one that ends a text among them."""

    def __init__(self) -> None:
        self.prompt = self.generated = self.thought = self.drafted = self.accepted = self.reused = 0

    def add(self, metrics: Metrics) -> None:
        self.prompt += metrics.prompt_tokens
        self.generated += metrics.completion_tokens
        self.thought += metrics.reasoning_tokens
        self.reused += metrics.reused_tokens
        self.drafted += metrics.drafted
        self.accepted += metrics.accepted

    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.reused},
        }
        details = {"reasoning_tokens": self.thought} if self.thought else {}
        if self.drafted:  # rejected ones cost time, but are no part of completion_tokens
            rejected = self.drafted - self.accepted
            details |= {"accepted_prediction_tokens": self.accepted, "rejected_prediction_tokens": rejected}
        if details:
            found["completion_tokens_details"] = details
        return found


def failure(text: str | None) -> ApiError:
    """The engine could not finish a sample."""
    text = text or "The engine stopped without saying why."
    full = "room" in text or "KV" in text or "shutting down" in text
    return ApiError(503 if full else 500, text, code="engine_error", retry_s=5 if full else None)


def checked(stream: Stream) -> RequestOutput:
    """A finished stream's result. Raises ApiError when a sample of it failed."""
    result = stream.collector.result(stream.request.id)
    for out in result.outputs:
        if out.finish_reason not in ("stop", "length"):
            raise failure(out.error)
    return result


async def merged(streams: Sequence[Stream]) -> AsyncIterator[tuple[int, StreamChunk]]:
    """(which stream, what is new) in the order it comes. Raises ApiError when a sample fails."""
    if len(streams) == 1:
        while not streams[0].finished or streams[0].has_more:
            for chunk in await streams[0].take():
                yield 0, _sound(chunk)
        return
    waiting = {asyncio.ensure_future(stream.take()): at for at, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                at = waiting.pop(task)
                for chunk in task.result():
                    yield at, _sound(chunk)
                if not streams[at].finished or streams[at].has_more:
                    waiting[asyncio.ensure_future(streams[at].take())] = at
    finally:
        for task in waiting:
            task.cancel()


def _sound(chunk: StreamChunk) -> StreamChunk:
    if chunk.finish_reason not in (None, "stop", "length"):
        raise failure(chunk.error)
    return chunk
