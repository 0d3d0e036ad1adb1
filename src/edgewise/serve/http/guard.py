"""The door: one middleware around every route and method. Host, Origin, key, content type and size, in this order.

The Host check stops DNS rebinding, the Origin check pages that make a browser ask for them; both hold on every address.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from edgewise.serve.http.errors import ApiError, answer
from edgewise.serve.http.ledger import LEDGER, Ledger
from edgewise.serve.http.settings import Settings
from edgewise.serve.http.telemetry import exporter

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
UNSAID = ("", "application/octet-stream")  # what programs send that do not say; a browser always says who asks
PUBLIC = frozenset({("GET", "/health"), ("HEAD", "/health"), ("GET", "/"), ("GET", "/page.js"), ("GET", "/page.css")})


class Guard:
    """busy: asked for each request; a sentence when the server takes no more work (draining, or full)."""

    def __init__(self, inner: App, settings: Settings, busy: Callable[[], ApiError | None]) -> None:
        self._inner, self._settings, self._busy = inner, settings, busy
        self._export = exporter()
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self._hosts = LOOPBACK | {name.lower() for name in settings.hosts | {settings.host}} - {"0.0.0.0", "::"}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        ledger = Ledger()
        LEDGER.set(ledger)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        welcome = origin if origin in self._settings.origins else None

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
                if welcome:
                    extra += [(b"access-control-allow-origin", welcome.encode()), (b"vary", b"Origin")]
                message["headers"] = [*message["headers"], *extra]
            began = time.perf_counter()
            await send(message)
            if message.get("body"):
                ledger.sent(began, time.perf_counter())

        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._settings.header_bytes:
            problem: ApiError | None = ApiError(431, "The headers are too long.", code="headers_too_long")
        else:
            problem = self._problem(scope, headers, origin, welcome)
        if problem is not None:
            await answer(scope["path"], problem)(scope, receive, decorated)
        elif scope["method"] == "OPTIONS" and welcome:
            await _preflight(decorated)
        else:
            await self._inner(scope, self._limited(receive), decorated)
            if ledger.tally is not None and ledger.whole:
                ledger.tally.ledgers.add(ledger)
                if self._export is not None:
                    self._export(ledger)

    def _problem(
        self, scope: Message, headers: dict[bytes, str], origin: str | None, welcome: str | None
    ) -> ApiError | None:
        path, method = scope["path"], scope["method"]
        host = _hostname(headers.get(b"host", ""))
        own = (scope.get("server") or ("",))[0]  # an address that was connected to cannot be a rebound name
        if host not in self._hosts and host != own:
            return ApiError(421, f"This server does not answer to '{host[:80]}'; see --allow-host.", code="bad_host")
        same = origin is None or origin.partition("://")[2] == headers.get(b"host")
        if not (same or welcome) or (headers.get(b"sec-fetch-site") == "cross-site" and not welcome):
            return ApiError(403, "Pages of other origins may not use this server; see --allow-origin.", code="origin")
        if method == "OPTIONS" and welcome:
            return None
        if self._keys and (method, path) not in PUBLIC and not self._opens(headers):
            return ApiError(401, "Give the API key: Authorization: Bearer KEY, or x-api-key.", code="invalid_api_key")
        if method == "POST":
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            unsaid = () if origin is not None or b"sec-fetch-site" in headers else UNSAID
            if kind != "application/json" and kind not in unsaid:
                return ApiError(415, "The content type must be application/json.", code="content_type")
            length = headers.get(b"content-length", "0")
            if length.isdigit() and int(length) > self._settings.body_bytes:
                return self._too_large()
            return self._busy()
        return None

    def _opens(self, headers: dict[bytes, str]) -> bool:
        scheme, _, key = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            key = headers.get(b"x-api-key", "")
        digest = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, one) for one in self._keys]  # all of them: no timing to learn from
        return any(matches)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"A body may have {self._settings.body_bytes} bytes at most.", code="body_too_large")

    def _limited(self, receive: Receive) -> Receive:
        """receive, counting bytes and watching the clock as long as the body is coming."""
        seen, complete = 0, False

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(self._settings.body_s):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "The body did not arrive in time.", code="timeout") from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > self._settings.body_bytes:
                raise self._too_large()
            return message

        return limited


def _hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; "" when it is not one."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
