"""Reading a request's body, waiting for its answer, and streams as server-sent events or lines of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgewise.base import BadInput
from edgewise.kernels.parsing import parse_json
from edgewise.serve.http.errors import ApiError, Gone, understood
from edgewise.serve.http.errors import body as error_body
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.settings import JSON_DEPTH, JSON_VALUES, Settings

T = TypeVar("T")
HEAD_S = 0.001  # an answer's head waits so long, so that the engine begins before it is written
FOREVER = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def fields(request: Request) -> Fields:
    """Strict JSON: no duplicate keys, bounded depth."""
    try:
        data = await request.body()
    except ClientDisconnect:
        raise Gone from None
    if len(data) > 1 << 16:
        return Fields(await asyncio.to_thread(_parsed, data))
    return Fields(_parsed(data))


def _parsed(data: bytes) -> Any:
    try:
        return parse_json(data, "The body", depth=JSON_DEPTH, values=JSON_VALUES)
    except BadInput as problem:
        raise ApiError(400, str(problem), code="bad_json") from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away. Raises Gone then."""
    settings: Settings = request.app.state.settings
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request.receive))
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=settings.request_s, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        raise Gone
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Response):
    """Pieces of a body as they come. A silent stream gets `ping` every ping_s seconds; a client that reads nothing for
    write_s seconds, or goes away, ends it, which closes `pieces` and so cancels the request."""

    def __init__(
        self, pieces: AsyncIterator[str], settings: Settings, path: str, *, media_type: str = "text/event-stream"
    ) -> None:
        self.status_code, self.background = 200, None
        self.body = b""
        self.media_type = media_type
        self.init_headers(FOREVER)
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._pieces, self._settings, self._path = pieces, settings, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait(
                {sending, gone}, timeout=self._settings.request_s, return_when=asyncio.FIRST_COMPLETED
            )  # fmt: skip
        finally:
            for task in (sending, gone):
                if not task.done():
                    task.cancel()
            results = await asyncio.gather(sending, gone, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], TimeoutError | OSError):
            raise results[0]

    async def _send(self, send: Send) -> None:
        async def write(text: str, more: bool = True) -> None:
            async with asyncio.timeout(self._settings.write_s):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        pieces = self._pieces
        following = asyncio.ensure_future(anext(pieces))
        try:
            await asyncio.wait({following}, timeout=HEAD_S)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while True:
                while not (await asyncio.wait({following}, timeout=self._settings.ping_s))[0]:
                    await write(self.ping())
                try:
                    piece = following.result()
                except StopAsyncIteration:
                    break
                except Exception as problem:
                    await write(self.failed(problem))
                    break
                await write(piece)
                following = asyncio.ensure_future(anext(pieces))
            await write("", more=False)
        finally:
            if not following.done():
                following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await pieces.aclose()  # type: ignore[attr-defined]

    def ping(self) -> str:
        return ": ping\n\n"

    def failed(self, problem: Exception) -> str:
        """The answer has begun with 200, so the error has to be a part of it."""
        return data(error_body(self._path, understood(problem)))


class Lines(Events):
    """One JSON object a line, as Ollama streams. There are no comments in it, so a silence stays one."""

    def __init__(self, pieces: AsyncIterator[str], settings: Settings, path: str) -> None:
        super().__init__(pieces, settings, path, media_type="application/x-ndjson")

    def ping(self) -> str:
        return ""

    def failed(self, problem: Exception) -> str:
        return line(error_body(self._path, understood(problem)))


def data(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
